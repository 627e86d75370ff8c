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

/// Of many calls of work(thread), each of them `amount` on all threads together.
template <class Work>
Rate repeated_rate(ThreadPool& pool, int num_threads, double amount, const Work& work) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9, sum = 0;
  int calls = 0;
  for (; calls < 4 || sum < 0.1; ++calls) {
    const auto t0 = Clock::now();
    if (num_threads == 1)
      work(0);
    else
      pool.run(num_threads, [&](int64_t task, int) { work(task); });
    const double seconds = std::chrono::duration<double>(Clock::now() - t0).count();
    best = std::min(best, seconds);
    sum += seconds;
  }
  return {.best = amount / best, .mean = amount * calls / sum};
}

/// Operations of a kernel that does `flops` of them a round.
struct ComputeRate {
  ThreadPool& pool;
  int num_threads;
  Rate operator()(float (*kernel)(int64_t), double flops) const {
    constexpr int64_t kRounds = 500'000;  // about 1 ms
    volatile float sink = 0;
    return repeated_rate(pool, num_threads, static_cast<double>(num_threads) * kRounds * flops,
                         [&](int64_t) { sink = kernel(kRounds); });
  }
};

ComputeCeiling compute_ceiling(ThreadPool& pool, int num_threads, const char* isa,
                               const cpu::vec::MachineKernels& kernels, bool bf16, bool i8) {
  const ComputeRate rate{pool, num_threads};
  return {isa, num_threads, rate(kernels.fma_f32, kernels.fma_f32_flops).best,
          bf16 ? rate(kernels.dot_bf16, kernels.dot_bf16_flops).best : 0,
          i8 ? rate(kernels.dot_i8, kernels.dot_i8_ops).best : 0};
}

/// Of the fastest instruction set.
const cpu::vec::MachineKernels& best_kernels() {
  return cpu_info().avx512 ? cpu::vec::avx512::machine : cpu::vec::avx2::machine;
}

int64_t dram_buffer_bytes() {
  return align_up(8 * l3_bytes(), kBlock * 4);
}

float* floats_of(const Buffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

/// Bytes of fn(begin, floats) over the first `total` floats, a part for each thread.
template <class Fn>
Rate memory_rate(ThreadPool& pool, int num_threads, int64_t total, double bytes_per_float, const Fn& fn) {
  const int64_t part = std::max<int64_t>(total / num_threads / kBlock, 1) * kBlock;
  return repeated_rate(pool, num_threads, static_cast<double>(part * num_threads) * bytes_per_float,
                       [&](int64_t task) { fn(task * part, part); });
}

Rate read_rate(ThreadPool& pool, int num_threads, const Buffer& buffer, int64_t bytes) {
  const cpu::vec::MachineKernels& kernels = best_kernels();
  volatile float sink = 0;
  return memory_rate(pool, num_threads, bytes / 4, 4,
                     [&](int64_t i, int64_t n) { sink = kernels.read(floats_of(buffer) + i, n); });
}

struct Buffers {
  explicit Buffers(int64_t bytes)
      : a(bytes, "machine bench"), b(bytes, "machine bench"), c(bytes, "machine bench") {}
  Buffer a, b, c;
};

MemoryCeiling measure_memory(ThreadPool& pool, int num_threads, const Buffers& buffers) {
  const cpu::vec::MachineKernels& kernels = best_kernels();
  float* a = floats_of(buffers.a);
  float* b = floats_of(buffers.b);
  float* c = floats_of(buffers.c);
  const int64_t bytes = buffers.a.bytes(), floats = bytes / 4;
  return {
      .num_threads = num_threads,
      .dram_read_bytes = read_rate(pool, num_threads, buffers.a, bytes).best,
      .dram_copy_bytes = memory_rate(pool, num_threads, floats, 8,
                                     [&](int64_t i, int64_t n) { kernels.copy(b + i, a + i, n); })
                             .best,
      .dram_triad_bytes = memory_rate(pool, num_threads, floats, 12,
                                      [&](int64_t i, int64_t n) { kernels.triad(c + i, a + i, b + i, n); })
                              .best,
      .l3_read_bytes = read_rate(pool, num_threads, buffers.a, l3_bytes() / 2).best};
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
  const CpuInfo& cpu = cpu_info();
  const auto add = [&](const char* isa, const cpu::vec::MachineKernels& kernels, bool bf16, bool i8) {
    for (const int n : thread_counts(*ctx.pool))
      ceilings.push_back(compute_ceiling(*ctx.pool, n, isa, kernels, bf16, i8));
  };
  if (cpu.avx512) add("avx512", cpu::vec::avx512::machine, cpu.avx512_bf16, cpu.avx512_vnni);
  if (cpu.avx2) add("avx2", cpu::vec::avx2::machine, false, false);
  return ceilings;
}

Rate measure_products(ExecContext& ctx, DType weights) {
  const CpuInfo& cpu = cpu_info();
  const cpu::vec::MachineKernels& kernels = best_kernels();
  const ComputeRate rate{*ctx.pool, ctx.pool->num_threads()};
  if (weights == DType::kI8) return cpu.avx512_vnni ? rate(kernels.dot_i8, kernels.dot_i8_ops) : Rate{};
  if (weights == DType::kBF16 && cpu.avx512_bf16) return rate(kernels.dot_bf16, kernels.dot_bf16_flops);
  return cpu.avx2 ? rate(kernels.fma_f32, kernels.fma_f32_flops) : Rate{};
}

MachineCeilings measure_machine(ExecContext& ctx) {
  MachineCeilings m{.compute = measure_compute(ctx), .memory = {}};
  if (!cpu_info().avx2) return m;
  const Buffers buffers(dram_buffer_bytes());
  for (const int n : thread_counts(*ctx.pool)) m.memory.push_back(measure_memory(*ctx.pool, n, buffers));
  return m;
}

ReadCeiling::ReadCeiling(ExecContext& ctx) : pool_(*ctx.pool) {
  if (cpu_info().avx2) buffer_ = Buffer(dram_buffer_bytes(), "machine bench");
}

Rate ReadCeiling::measure() const {
  return buffer_.bytes() == 0 ? Rate{} : read_rate(pool_, pool_.num_threads(), buffer_, buffer_.bytes());
}

}  // namespace moge::ops
