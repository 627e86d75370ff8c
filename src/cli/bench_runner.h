// What the benchmarks of a model on a GPU have in common: its runner, the rates that its passes are compared
// with, what they have to move and to compute, and their time by op.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "cli/bench_device.h"
#include "cli/device_roof.h"
#include "engine/runner.h"
#include "spec/cost.h"

namespace moge::cli {

class BenchRunner {
 public:
  /// Plans, measures the card, then loads. `options` must outlive it. UsageError for sequences longer than
  /// the model's, OutOfMemoryError for a plan that does not fit.
  BenchRunner(const DeviceBenchOptions& options, const engine::RunnerConfig& limits);

  engine::Runner& runner() { return *runner_; }
  Backend& backend() { return backend_; }
  const DeviceRoof& roof() const { return roof_; }

  /// What every benchmark's JSON begins with.
  nlohmann::ordered_json header(const char* benchmark, int64_t batch) const;
  /// One decode step of `batch` sequences that attend to `positions` positions together.
  Work decode_work(int64_t batch, int64_t positions) const;
  /// One pass over `prompts` whole prompts of `tokens` each.
  Work prompt_work(int64_t prompts, int64_t tokens) const;
  /// Random ids of the model's vocabulary that only depend on --seed and `stream`.
  std::vector<int32_t> ids(int64_t count, uint64_t stream) const;

  /// Passes that are profiled one after another, at most: each makes a decoded context longer.
  static constexpr int64_t kMostPasses = 64;
  /// Adds the times by op, each call's median over several passes that take about pass_ms. A pass that is a
  /// graph is recorded anew, with events in it. `passes` runs n of them, at most `most`, and returns the
  /// milliseconds until the last one's tokens were on the host, or 0.
  void profile(nlohmann::ordered_json& out, bool is_graph, double pass_ms, int64_t most,
               const std::function<double(int64_t n)>& passes);

 private:
  spec::ServingFormat format() const;

  const DeviceBenchOptions& options_;
  ThreadPool pool_;
  Backend& backend_;
  DeviceRoof roof_;
  std::unique_ptr<engine::Runner> runner_;
};

/// The table of what profile() added.
std::string ops_text(const nlohmann::ordered_json& ops);

}  // namespace moge::cli
