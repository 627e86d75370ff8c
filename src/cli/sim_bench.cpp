// moge bench sim: how many step evaluations a second one core does.
#include <chrono>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/sim_setup.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

struct BenchSimOptions {
  SimSetupOptions setup{
      .model = "pangu-pro-moe-72b-a16b", .machine = {.hardware = "ascend-800i-a2"}, .cards = 4};
  int64_t evaluations = 2'000'000;
  bool json = false;

  std::vector<Option> options() {
    std::vector<Option> all =
        joined(setup.options(), {{.name = "evaluations",
                                  .target = &evaluations,
                                  .value = "N",
                                  .help = "Evaluations to time",
                                  .min = 1,
                                  .max = 1e12},
                                 {.name = "json", .target = &json, .help = "Print one JSON object"}});
    for (Option& option : all) option.required = false;  // model and machine have defaults here
    return all;
  }
};

void bench_sim(const BenchSimOptions& o) {
  using Clock = std::chrono::steady_clock;
  const SimSetup s = load_setup(o.setup);
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const Clock::time_point built = Clock::now();
  constexpr int64_t kSearches = 10000;
  size_t num_models = 0;
  for (int64_t i = 0; i < kSearches; ++i) num_models += s.search().models().size();
  const double build_rate = static_cast<double>(num_models) / seconds_since(built);

  const sim::PlanSearch search = s.search();
  const auto plans = static_cast<int64_t>(search.models().size());
  constexpr int64_t kBatches = 512;
  double sum = 0;  // keeps the evaluations from being optimised away; printed
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < o.evaluations; ++i) {
    const sim::StepModel& model = search.models()[static_cast<size_t>(i % plans)];
    sum += model.seconds(sim::decode_load(static_cast<double>(1 + i % kBatches), 2048));
  }
  const double rate = static_cast<double>(o.evaluations) / seconds_since(start);
  const ordered_json out = {{"model", o.setup.model},
                            {"hardware", o.setup.machine.hardware},
                            {"plans", plans},
                            {"evaluations", o.evaluations},
                            {"evaluations_per_second", rate},
                            {"models_built_per_second", build_rate},
                            {"mean_latency_ms", sum / static_cast<double>(o.evaluations) * 1e3}};
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(2) << "step evaluations     " << rate * 1e-6
            << " million a second on one core (" << plans << " plans, batches 1 to " << kBatches << ", mean "
            << out["mean_latency_ms"].get<double>() << " ms)\nplans made ready     " << build_rate * 1e-6
            << " million a second\n";
}

}  // namespace

Command bench_sim_command() {
  return make_command<BenchSimOptions>(
      {"bench sim", "step evaluations a second of the simulator, on one core",
       "Every plan of a model and machine, batches 1 to 512.\n\n"
       "  moge bench sim\n"},
      bench_sim);
}

}  // namespace moge::cli
