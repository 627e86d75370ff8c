// op_cases MODE [FILTER [IMPL]]: runs the op cases whose "op params" contains FILTER, on the implementations
// whose names contain IMPL. GTEST_TOTAL_SHARDS and GTEST_SHARD_INDEX deal cases out to several processes, as
// GoogleTest deals out tests.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "ops/harness.h"
#include "ops/machine.h"
#include "ops/op_list.h"
#include "spec/hardware.h"

namespace moge::test {
namespace {

/// -1 for what is no number.
int number_in(const char* variable, int otherwise) {
  const char* const text = std::getenv(variable);
  if (!text) return otherwise;
  const char* const end = text + std::strlen(text);
  int number = 0;
  const auto [rest, error] = std::from_chars(text, end, number);
  return error == std::errc() && rest == end ? number : -1;
}

struct Selection {
  std::string filter, impl;
  int shards = number_in("GTEST_TOTAL_SHARDS", 1), index = number_in("GTEST_SHARD_INDEX", 0);
  bool takes(const AnyCase& c) const {
    if ((c.op + " " + c.params).find(filter) == std::string::npos) return false;
    return (&c - all_cases().data()) % shards == index;
  }
  std::vector<std::string> impls(const AnyCase& c) const {
    std::vector<std::string> names = c.impls();
    std::erase_if(names, [&](const std::string& name) { return name.find(impl) == std::string::npos; });
    return names;
  }
};

/// A plain reference where something faster exists: not timed, some take minutes at perf's shapes.
bool is_beaten(const AnyCase& c, const std::string& impl) {
  return impl == "cpu.ref" && c.impls().size() > 1;
}

/// Runs `check` over the cases that have it; prints failures and what was left out; returns how many failed.
int run_checks(const Selection& selection, std::function<std::string(const std::string&)> AnyCase::*check) {
  int passed = 0, failed = 0, left_out = 0;
  for (const AnyCase& c : all_cases()) {
    if (!(c.*check) || !selection.takes(c)) continue;
    std::vector<std::string> impls = selection.impls(c);
    if (check == &AnyCase::races && c.slow_races && std::erase_if(impls, on_gpu) > 0) {
      std::printf("LEFT OUT on the GPU %s %s\n", c.op.c_str(), c.params.c_str());
      ++left_out;
    }
    for (const std::string& impl : impls) {
      // A reference has the tasks of the rest of its list, or no threads.
      if (check == &AnyCase::races && is_beaten(c, impl)) continue;
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
      std::fflush(stdout);
    }
  }
  std::printf("%d passed, %d failed", passed, failed);
  if (left_out > 0) std::printf(", %d left out", left_out);
  std::printf("\n");
  return passed == 0 && selection.shards == 1 ? 1 : failed;  // a shard may be left without cases
}

/// The operands' type as the case's parameters name it, the first of several: what a peak is looked up by.
DType operand_type(const AnyCase& c) {
  size_t first = std::string::npos;
  DType type = DType::kF32;
  for (const DType t : {DType::kBF16, DType::kI8, DType::kFP8E4M3}) {
    const size_t at = c.params.find(name_of(t));
    if (at < first) {
      first = at;
      type = t;
    }
  }
  return type;
}

/// What limits a case: bytes/s and, for its operands, FLOP/s. 0: unknown.
struct Roof {
  double bytes = 0;
  std::map<DType, double> flops;
  double seconds(const AnyCase& c, const AnyCase::Timing& t) const {
    const auto peak = flops.find(operand_type(c));
    return std::max(bytes > 0 ? t.bytes / bytes : 0, peak != flops.end() ? t.flops / peak->second : 0);
  }
};

/// The measured ceilings of the CPU. A case that stays in cache may beat the memory's.
Roof cpu_roof() {
  Bench bench(0);
  const ops::MachineCeilings machine = ops::measure_machine(bench.ctx);
  Roof roof;
  int threads = 0;
  for (const ops::ComputeCeiling& ceiling : machine.compute) threads = std::max(threads, ceiling.num_threads);
  for (const ops::ComputeCeiling& ceiling : machine.compute) {
    if (ceiling.num_threads < threads) continue;
    roof.flops[DType::kF32] = std::max(roof.flops[DType::kF32], ceiling.f32_flops);
    roof.flops[DType::kBF16] = std::max({roof.flops[DType::kBF16], ceiling.f32_flops, ceiling.bf16_flops});
    if (ceiling.i8_ops > 0) roof.flops[DType::kI8] = std::max(roof.flops[DType::kI8], ceiling.i8_ops);
  }
  for (const ops::MemoryCeiling& ceiling : machine.memory)
    roof.bytes = std::max(roof.bytes, ceiling.dram_copy_bytes);
  return roof;
}

/// The measured copy bandwidth, and the datasheet's peak (configs/hardware) of the matrix units.
Roof gpu_roof(Backend& gpu) {
  namespace fs = std::filesystem;
  Roof roof{.bytes = gpu.copy_bandwidth(), .flops = {}};
  std::printf("%s: copies at %.0f GB/s\n", gpu.info().name.c_str(), roof.bytes * 1e-9);
  // The device calls itself "NVIDIA H100 80GB HBM3", the file "NVIDIA H100 SXM".
  const std::string& name = gpu.info().name;
  const std::string model = name.substr(0, name.find(' ', name.find(' ') + 1));
  const fs::path configs =
      fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "share/moge/configs/hardware";
  std::error_code missing;
  for (const auto& file : fs::directory_iterator(configs, missing)) {
    const spec::Hardware hardware = spec::load_hardware(file);
    if (!hardware.name.starts_with(model + " ")) continue;
    for (const auto& [dtype, peak] : hardware.peak_flops) roof.flops[dtype] = peak.value;
  }
  return roof;
}

void run_perf(const Selection& selection) {
  std::optional<Roof> cpu, gpu;
  const auto roof_of = [&](const std::string& impl) -> const Roof& {
    if (on_gpu(impl)) return gpu ? *gpu : gpu.emplace(gpu_roof(*device()));
    return cpu ? *cpu : cpu.emplace(cpu_roof());
  };
  std::printf("%-20s %-52s %-14s %10s %8s %8s %6s\n", "op", "case", "impl", "us", "GB/s", "GFLOP/s",
              "% roof");
  for (const AnyCase& c : all_cases()) {
    if (!c.perf || !selection.takes(c)) continue;
    for (const std::string& impl : selection.impls(c)) {
      if (is_beaten(c, impl) || !c.refusal(impl).empty()) continue;
      const Roof& roof = roof_of(impl);
      const AnyCase::Timing t = c.perf(impl);
      std::printf("%-20s %-52s %-14s %10.2f %8.1f %8.1f %6.0f\n", c.op.c_str(), c.params.c_str(),
                  impl.c_str(), t.seconds * 1e6, t.bytes / t.seconds * 1e-9, t.flops / t.seconds * 1e-9,
                  100 * roof.seconds(c, t) / t.seconds);
      std::fflush(stdout);
    }
  }
}

void run_support(const Selection& selection) {
  for (const AnyCase& c : all_cases()) {
    if (!selection.takes(c)) continue;
    std::printf("%-20s %-52s", c.op.c_str(), c.params.c_str());
    for (const std::string& impl : selection.impls(c)) {
      const Refusal refusal = c.refusal(impl);
      std::printf("  %s%s%s", impl.c_str(), refusal.empty() ? "" : " refused: ", refusal.c_str());
    }
    std::printf("\n");
  }
}

/// Whether the ops with cases are those that MOGE_IMPL knows, and every backward has one for its gradients.
/// Prints and counts what is lacking.
int check_names() {
  std::set<std::string> of_cases, known;
  for (const AnyCase& c : all_cases()) of_cases.insert(c.op);
  for (const ops::OpNames& names : ops::all_ops()) known.insert(names.op);
  std::vector<std::string> lacking;
  std::ranges::set_symmetric_difference(of_cases, known, std::back_inserter(lacking));
  for (const std::string& op : lacking)
    std::printf("FAILED %s: %s\n", op.c_str(), known.contains(op) ? "no case" : "not in ops/op_list.cpp");
  int failed = static_cast<int>(lacking.size());
  for (const std::string& op : known) {
    const bool differentiated =
        std::ranges::any_of(all_cases(), [&](const AnyCase& c) { return c.op == op && c.grad; });
    if (!op.ends_with("_bwd") || differentiated) continue;
    std::printf("FAILED %s: no case of mode grad\n", op.c_str());
    ++failed;
  }
  std::printf("%zu ops\n", known.size());
  return failed;
}

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const Selection selection{.filter = argc > 2 ? argv[2] : "", .impl = argc > 3 ? argv[3] : ""};
  if (selection.shards < 1 || selection.index < 0 || selection.index >= selection.shards) {
    std::fprintf(stderr,
                 "GTEST_TOTAL_SHARDS, GTEST_SHARD_INDEX: expected shard 0 to N - 1 of N, got %d of %d\n",
                 selection.index, selection.shards);
    return 2;
  }
  // Its implementations join the tables. Who asks for them alone is not to pass for want of a GPU.
  if (!device() && on_gpu(selection.impl)) return 1;
  if (mode == "test") return run_checks(selection, &AnyCase::test) > 0;
  if (mode == "grad") return run_checks(selection, &AnyCase::grad) > 0;
  if (mode == "races") return run_checks(selection, &AnyCase::races) > 0;
  if (mode == "perf") return run_perf(selection), 0;
  if (mode == "support") return run_support(selection), 0;
  if (mode == "names") return check_names() > 0;
  std::fprintf(stderr, "usage: op_cases test|grad|races|perf|support|names [FILTER [IMPL]]\n");
  return 2;
}

}  // namespace
}  // namespace moge::test

int main(int argc, char** argv) {
  return moge::test::main(argc, argv);
}
