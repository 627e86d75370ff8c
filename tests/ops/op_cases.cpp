// op_cases MODE [FILTER]: runs the op cases whose "op params" contains FILTER.
#include <cstdio>
#include <cstring>
#include <exception>

#include "ops/harness.h"

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

void run_perf(const std::string& filter) {
  std::printf("%-20s %-44s %-12s %10s %8s %8s\n", "op", "case", "impl", "us", "GB/s", "GFLOP/s");
  for (const AnyCase& c : all_cases()) {
    if (!c.perf || (c.op + " " + c.params).find(filter) == std::string::npos) continue;
    for (const std::string& impl : c.impls) {
      if (!c.refusal(impl).empty()) continue;
      const AnyCase::Timing t = c.perf(impl);
      std::printf("%-20s %-44s %-12s %10.1f %8.1f %8.1f\n", c.op.c_str(), c.params.c_str(), impl.c_str(),
                  t.seconds * 1e6, t.bytes / t.seconds * 1e-9, t.flops / t.seconds * 1e-9);
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
