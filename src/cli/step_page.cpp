#include "cli/step_page.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/str.h"
#include "sim/step_report.h"

namespace moge::cli {
namespace {

constexpr size_t kMostPlans = 6;  // lines that can be told apart

sim::Roof roof_of(const SimSetup& s) {
  sim::Roof roof{s.device.memory_bandwidth};
  const double weights = s.device.matmul_flops(s.precision.weights);
  roof.peaks = {{"16-bit", s.device.dense_flops}};
  if (weights != s.device.dense_flops) roof.peaks.push_back({sim::name_of(s.precision.weights), weights});
  std::ranges::sort(roof.peaks, std::greater<>(), &sim::Roof::Peak::flops);
  return roof;
}

sim::Chart plan_chart(const sim::PlanSearch& search, const sim::ThroughputSetup& lines) {
  const bool decode = lines.stage == sim::ThroughputSetup::Stage::kDecode;
  return {"plans",
          "Throughput against latency, by plan",
          "The plans that are fastest at some batch size.",
          {decode ? "Time per output token (ms)" : "Time to the first token (ms)", true},
          {"Tokens/s per card"},
          sim::plan_curves(search, lines, kMostPlans)};
}

}  // namespace

std::vector<Option> StepPageOptions::options() {
  return joined(files.options(),
                {{.name = "compare",
                  .target = &compare,
                  .value = "MODEL",
                  .help = "On the page: another model's line of throughput against latency"}});
}

void write_step_page(const StepPageOptions& wanted, const SimSetupOptions& options, const SimSetup& setup,
                     const nlohmann::ordered_json& result, const sim::ThroughputSetup& lines) {
  if (!wanted.files.any()) return;
  const sim::PlanSearch search = setup.search();
  std::vector<sim::Series> curves{sim::throughput_curve(options.model, search, lines)};
  for (const std::string& model : wanted.compare) {
    SimSetupOptions other = options;
    other.model = model;
    curves.push_back(sim::throughput_curve(model, load_setup(other).search(), lines));
  }
  std::erase_if(curves, [](const sim::Series& line) { return line.x.empty(); });
  sim::Report report = sim::step_report(result, roof_of(setup), std::move(curves));
  if (sim::Chart plans = plan_chart(search, lines); plans.series.size() > 1)
    report.charts.push_back(std::move(plans));
  report.tables.push_back(sim::constants_table(setup.device.calibration));
  report.notes = {
      "Times are those of one step; a constant's status says whether it was measured, fitted to published "
      "rows, or assumed.",
      str("The router's choices have skew ", setup.skew,
          setup.skew == 0 ? ": all experts are equally likely." : ".")};
  wanted.files.write(report, result);
}

}  // namespace moge::cli
