#include "ops/machine.h"

#include <algorithm>
#include <chrono>
#include <fstream>

#include "core/cpu_info.h"
#include "ops/cpu/vec/machine.h"

namespace moge::ops {

namespace {

constexpr int64_t kBlock = 4096;  // floats: parts of a buffer are whole pages

/// From sysfs: sysconf reports the sum over a socket, of which a core reaches one slice.
int64_t l3_bytes() {
  std::ifstream in("/sys/devices/system/cpu/cpu0/cache/index3/size");  // "32768K"
  int64_t kib = 0;
  in >> kib;
  return kib > 0 ? kib << 10 : int64_t{32} << 20;
}

/// Seconds of the fastest of many calls of work(thread) on all threads together.
template <class Work>
double best_seconds(ThreadPool& pool, int num_threads, const Work& work) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  const auto start = Clock::now();
  for (int round = 0; round < 4 || Clock::now() - start < std::chrono::milliseconds(100); ++round) {
    const auto t0 = Clock::now();
    if (num_threads == 1)
      work(0);
    else
      pool.run(num_threads, [&](int64_t task, int) { work(task); });
    best = std::min(best, std::chrono::duration<double>(Clock::now() - t0).count());
  }
  return best;
}

ComputeCeiling compute_ceiling(ThreadPool& pool, int num_threads, const char* isa,
                               const cpu::vec::MachineKernels& kernels, bool bf16) {
  constexpr int64_t kRounds = 500'000;  // about 1 ms
  const auto rate = [&](float (*kernel)(int64_t), double flops) {
    volatile float sink = 0;
    return static_cast<double>(num_threads) * kRounds * flops /
           best_seconds(pool, num_threads, [&](int64_t) { sink = kernel(kRounds); });
  };
  return {isa, num_threads, rate(kernels.fma_f32, kernels.fma_f32_flops),
          bf16 ? rate(kernels.dot_bf16, kernels.dot_bf16_flops) : 0};
}

struct Buffers {
  explicit Buffers(int64_t bytes)
      : floats(bytes / 4), a(bytes, "machine bench"), b(bytes, "machine bench"), c(bytes, "machine bench") {}
  static float* floats_of(const Buffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }
  int64_t floats;
  Buffer a, b, c;
};

MemoryCeiling measure_memory(ThreadPool& pool, int num_threads, const cpu::vec::MachineKernels& kernels,
                             const Buffers& buffers) {
  float* a = Buffers::floats_of(buffers.a);
  float* b = Buffers::floats_of(buffers.b);
  float* c = Buffers::floats_of(buffers.c);
  // fn(begin, floats) over the first `total` floats, a part for each thread.
  const auto rate = [&](int64_t total, double bytes_per_float, const auto& fn) {
    const int64_t part = std::max<int64_t>(total / num_threads / kBlock, 1) * kBlock;
    return static_cast<double>(part * num_threads) * bytes_per_float /
           best_seconds(pool, num_threads, [&](int64_t task) { fn(task * part, part); });
  };
  volatile float sink = 0;
  const auto read = [&](int64_t i, int64_t n) { sink = kernels.read(a + i, n); };
  return {.num_threads = num_threads,
          .dram_read_bytes = rate(buffers.floats, 4, read),
          .dram_copy_bytes =
              rate(buffers.floats, 8, [&](int64_t i, int64_t n) { kernels.copy(b + i, a + i, n); }),
          .dram_triad_bytes =
              rate(buffers.floats, 12, [&](int64_t i, int64_t n) { kernels.triad(c + i, a + i, b + i, n); }),
          .l3_read_bytes = rate(l3_bytes() / 8, 4, read)};  // half the L3 in floats
}

/// One, and all if there are more.
std::vector<int> thread_counts(const ThreadPool& pool) {
  std::vector<int> counts{1};
  if (pool.num_threads() > 1) counts.push_back(pool.num_threads());
  return counts;
}

}  // namespace

std::vector<ComputeCeiling> measure_compute(ExecContext& ctx) {
  std::vector<ComputeCeiling> ceilings;
  const auto add = [&](const char* isa, const cpu::vec::MachineKernels& kernels, bool bf16) {
    for (const int n : thread_counts(*ctx.pool))
      ceilings.push_back(compute_ceiling(*ctx.pool, n, isa, kernels, bf16));
  };
  if (cpu_info().avx512) add("avx512", cpu::vec::avx512::machine, cpu_info().avx512_bf16);
  if (cpu_info().avx2) add("avx2", cpu::vec::avx2::machine, false);
  return ceilings;
}

MachineCeilings measure_machine(ExecContext& ctx) {
  MachineCeilings m{.compute = measure_compute(ctx), .memory = {}};
  if (!cpu_info().avx2) return m;
  const Buffers buffers(align_up(8 * l3_bytes(), kBlock * 4));
  const auto& kernels = cpu_info().avx512 ? cpu::vec::avx512::machine : cpu::vec::avx2::machine;
  for (const int n : thread_counts(*ctx.pool))
    m.memory.push_back(measure_memory(*ctx.pool, n, kernels, buffers));
  return m;
}

}  // namespace moge::ops
