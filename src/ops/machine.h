// Measured ceilings of this machine: what "percent of the roof" is a percentage of. Never nominal figures,
// because clocks, virtual machines and neighbours decide. Each ceiling is the best of repeated runs in about
// 0.1 s:
//   compute  fused multiply-adds (f32), pair dots (bf16) or dots of four bytes (i8) on registers only, for
//            each instruction set
//   DRAM     buffers of eight times the L3 each, every thread on its own part: read (a sum), copy and triad
//            (a + 3 b); bytes are those the loop names (4, 8 and 12 an element), not the lines that caches
//            fetch before they are written
//   L3       read of half the L3, shared out among the threads, so that L2 holds little of it
#pragma once
#include <vector>

#include "core/buffer.h"
#include "core/exec_context.h"

namespace moge::ops {

struct ComputeCeiling {
  const char* isa;  ///< "avx512", "avx2"
  int num_threads;
  double f32_flops;   ///< per second
  double bf16_flops;  ///< per second; 0: no such instruction
  double i8_ops;      ///< likewise
};

struct MemoryCeiling {
  int num_threads;
  double dram_read_bytes;  ///< per second, as all below
  double dram_copy_bytes;
  double dram_triad_bytes;
  double l3_read_bytes;
};

/// Fastest instruction set first; one thread, then all threads of the pool if there are more.
struct MachineCeilings {
  std::vector<ComputeCeiling> compute;
  std::vector<MemoryCeiling> memory;
};

/// Takes some seconds and, for its buffers, 24 times the L3's bytes. Throws OutOfMemoryError; on a CPU
/// without AVX2 both lists are empty.
MachineCeilings measure_machine(ExecContext& ctx);

/// Per second, of passes repeated for 0.1 s: the fastest, which is the ceiling, and all of them together.
/// They differ where others share the machine's memory: a pass of milliseconds meets moments that no longer
/// work has to itself.
struct Rate {
  double best = 0;
  double mean = 0;
};

/// What all threads alone read from DRAM, again and again: memory's rate changes within minutes, so what is
/// compared with it is timed between two calls.
class ReadCeiling {
 public:
  explicit ReadCeiling(ExecContext& ctx);
  /// Bytes; takes 0.1 s. 0 on a CPU without AVX2.
  Rate measure() const;

 private:
  ThreadPool& pool_;
  Buffer buffer_;
};

/// The compute ceilings alone: less than a second, no buffers.
std::vector<ComputeCeiling> measure_compute(ExecContext& ctx);

/// What all threads do by the fastest instruction set for products of weights in f32, bf16 or i8, alone:
/// operations; takes 0.1 s. bf16 without an instruction for it is multiplied as f32. 0: the CPU has none.
Rate measure_products(ExecContext& ctx, DType weights);

}  // namespace moge::ops
