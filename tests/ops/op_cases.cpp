// op_cases MODE [FILTER]: runs the op cases whose "op params" contains FILTER.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>

#include "ops/harness.h"
#include "ops/machine.h"

namespace moge::test {
namespace {

/// Runs `check` over the cases that have it; prints failures; returns how many there were.
int run_checks(const std::string& filter, std::function<std::string(const std::string&)> AnyCase::*check) {
  int passed = 0, failed = 0;
  for (const AnyCase& c : all_cases()) {
    if (!(c.*check) || (c.op + " " + c.params).find(filter) == std::string::npos) continue;
    for (const std::string& impl : c.impls) {
      std::string why;
      try {
        if (!c.refusal(impl).empty()) continue;
        why = (c.*check)(impl);
      } catch (const std::exception& e) {
        why = e.what();
      }
      ++(why.empty() ? passed : failed);
      if (!why.empty())
        std::printf("FAILED %s %s %s: %s\n", c.op.c_str(), c.params.c_str(), impl.c_str(), why.c_str());
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return passed == 0 ? 1 : failed;
}

/// Seconds that the machine's measured ceilings allow at best: DRAM copy bandwidth, and the arithmetic of the
/// case's precision. A case that stays in cache may beat the former.
double roof_seconds(const ops::MachineCeilings& machine, const AnyCase& c, const AnyCase::Timing& t) {
  if (machine.compute.empty() || machine.memory.empty()) return 0;
  int threads = 0;
  double flops = 0, bytes = 0;
  for (const ops::ComputeCeiling& ceiling : machine.compute) {
    const bool bf16 = c.params.find("bf16") != std::string::npos && ceiling.bf16_flops > 0;
    if (ceiling.num_threads >= threads)
      flops = std::max(flops, bf16 ? ceiling.bf16_flops : ceiling.f32_flops);
    threads = std::max(threads, ceiling.num_threads);
  }
  for (const ops::MemoryCeiling& ceiling : machine.memory) bytes = std::max(bytes, ceiling.dram_copy_bytes);
  return std::max(t.bytes / bytes, t.flops / flops);
}

/// References are not timed: some take minutes at these shapes, and nobody runs them for speed.
void run_perf(const std::string& filter) {
  Bench bench(0);
  const ops::MachineCeilings machine = ops::measure_machine(bench.ctx);
  std::printf("%-20s %-44s %-12s %10s %8s %8s %6s\n", "op", "case", "impl", "us", "GB/s", "GFLOP/s",
              "% roof");
  for (const AnyCase& c : all_cases()) {
    if (!c.perf || (c.op + " " + c.params).find(filter) == std::string::npos) continue;
    for (const std::string& impl : c.impls) {
      if (!c.refusal(impl).empty() || (impl == "cpu.ref" && c.impls.size() > 1)) continue;
      const AnyCase::Timing t = c.perf(impl);
      std::printf("%-20s %-44s %-12s %10.1f %8.1f %8.1f %6.0f\n", c.op.c_str(), c.params.c_str(),
                  impl.c_str(), t.seconds * 1e6, t.bytes / t.seconds * 1e-9, t.flops / t.seconds * 1e-9,
                  100 * roof_seconds(machine, c, t) / t.seconds);
      std::fflush(stdout);
    }
  }
}

void run_support(const std::string& filter) {
  for (const AnyCase& c : all_cases()) {
    if ((c.op + " " + c.params).find(filter) == std::string::npos) continue;
    std::printf("%-20s %-44s", c.op.c_str(), c.params.c_str());
    for (const std::string& impl : c.impls) {
      const Refusal refusal = c.refusal(impl);
      std::printf("  %s%s%s", impl.c_str(), refusal.empty() ? "" : " refused: ", refusal.c_str());
    }
    std::printf("\n");
  }
}

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const std::string filter = argc > 2 ? argv[2] : "";
  if (mode == "test") return run_checks(filter, &AnyCase::test) > 0;
  if (mode == "grad") return run_checks(filter, &AnyCase::grad) > 0;
  if (mode == "perf") return run_perf(filter), 0;
  if (mode == "support") return run_support(filter), 0;
  std::fprintf(stderr, "usage: op_cases test|grad|perf|support [FILTER]\n");
  return 2;
}

}  // namespace
}  // namespace moge::test

int main(int argc, char** argv) {
  return moge::test::main(argc, argv);
}
