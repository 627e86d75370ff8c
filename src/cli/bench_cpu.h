// Benchmarks of one sequence on the CPU: what `moge bench decode | prefill | llama` run without a GPU.
#pragma once
#include <cstdint>

#include "cli/served_model.h"

namespace moge::cli {

struct CpuBenchOptions {
  ModelOptions model;
  int64_t prompt_tokens = 16;  ///< random ids
  int64_t max_tokens = 64;     ///< decode: of a generation
  int64_t rounds = 7;          ///< to take the median of
  bool json = false;
};

/// Tokens per second, and bytes read per second beside what memory gives just before and after.
void bench_cpu_decode(const CpuBenchOptions& options);
/// Time to the first token, and FLOP/s beside what arithmetic on registers reaches just before and after.
void bench_cpu_prefill(const CpuBenchOptions& options);
/// A prompt of 512 tokens (pp512), and 128 tokens generated from nothing (tg128), as llama-bench reports.
void bench_cpu_llama(const CpuBenchOptions& options);

}  // namespace moge::cli
