#include "sim/comparison_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/str.h"

namespace moge::sim {

namespace {

using nlohmann::ordered_json;

std::string percent(const ordered_json& error) {
  if (error.is_null()) return "";
  const double share = error;
  return str(share > 0 ? "+" : "", fixed_text(100 * share, 1), "%");
}

/// Bars of both times, one pair an operator.
Chart ops_chart(const ordered_json& run, size_t index) {
  Chart chart{str("ops-", index),
              str("Operators: ", run["run"].get<std::string>()),
              "All layers together, the most time at the top.",
              {"Time (ms)"},
              {""}};
  Series measured{"measured", Mark::kBars, {}, {}, {}, Colour::kQuiet};
  Series predicted{"predicted", Mark::kBars, {}, {}, {}, Colour::kCompute, false, true};
  for (const ordered_json& op : run["ops"]) {
    const auto y = static_cast<double>(chart.y.categories.size());
    chart.y.categories.push_back(op["op"]);
    measured.x.push_back(op["measured_ms"]);
    measured.y.push_back(y);
    measured.notes.push_back(fixed_text(op["measured_ms"], 3));
    predicted.x.push_back(op["predicted_ms"]);
    predicted.y.push_back(y);
    predicted.notes.push_back(percent(op["error"]));
  }
  chart.series = {measured, predicted};
  return chart;
}

}  // namespace

Report comparison_report(const ordered_json& result) {
  Report report{"Predicted and measured runs", str(result["hardware"].get<std::string>())};
  Table runs{
      "runs", "Runs", "", {"Run", "Measured (ms)", "Predicted (ms)", "Error", "Operators, mean error"}};
  Table ops{"ops", "Operators", "", {"Run", "Operator", "Measured (ms)", "Predicted (ms)", "Error", "Basis"}};
  size_t index = 0;
  for (const ordered_json& run : result["runs"]) {
    const std::string name = run["run"];
    const std::string mean = str(fixed_text(100 * run["mean_op_error"].get<double>(), 1), "%");
    runs.rows.push_back({name, fixed_text(run["measured_ms"], 3), fixed_text(run["predicted_ms"], 3),
                         percent(run["error"]), mean});
    report.facts.push_back({name, percent(run["error"]), "", str("operators: mean ", mean)});
    for (const ordered_json& op : run["ops"])
      ops.rows.push_back({name, op["op"], fixed_text(op["measured_ms"], 3), fixed_text(op["predicted_ms"], 3),
                          percent(op["error"]), op["basis"]});
    report.charts.push_back(ops_chart(run, index++));
  }
  report.tables = {runs, ops};
  report.notes = {
      "Operators are timed between events, in the run and where they were measured alone; their sum is more "
      "than the step, which has no events.",
      "The mean over operators weighs each by its measured time."};
  return report;
}

}  // namespace moge::sim
