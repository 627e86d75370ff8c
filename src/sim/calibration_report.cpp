#include "sim/calibration_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/str.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

std::string percent(double share) {
  return str(share > 0 ? "+" : "", fixed_text(100 * share, 2), "%");
}

/// Predicted over measured times; on the diagonal they agree.
Chart parity_chart(const ordered_json& machine, size_t index) {
  Chart chart{str("parity-", index),
              str("Predicted and measured: ", machine["hardware"].get<std::string>()),
              "Points on the line agree; the dashed ones are 10% off.",
              {"Measured (ms)", true},
              {"Predicted (ms)", true}};
  Series fitted{"calibrated", Mark::kPoints, {}, {}, {}, Colour::kCompute};
  Series held_out{"held out", Mark::kPoints, {}, {}, {}, Colour::kMemory};
  double low = 1e300, high = 0;
  for (const ordered_json& row : machine["rows"]) {
    Series& s = row["status"] == "held out" ? held_out : fitted;
    s.x.push_back(row["measured_ms"]);
    s.y.push_back(row["predicted_ms"]);
    s.notes.push_back(str(row["row"].get<std::string>(), ", ", percent(row["error"])));
    low = std::min({low, s.x.back(), s.y.back()});
    high = std::max({high, s.x.back(), s.y.back()});
  }
  for (const double factor : {1.0, 1.1, 0.9})
    chart.series.push_back({"",
                            Mark::kLine,
                            {low * 0.8, high * 1.25},
                            {low * 0.8 * factor, high * 1.25 * factor},
                            {},
                            Colour::kQuiet,
                            factor != 1});
  for (Series* s : {&fitted, &held_out})
    if (!s->x.empty()) chart.series.push_back(std::move(*s));
  return chart;
}

Chart error_chart(const ordered_json& machine, size_t index) {
  Chart chart{str("errors-", index),
              str("Errors: ", machine["hardware"].get<std::string>()),
              str("Calibrated rows: mean ", fixed_text(100 * machine["calibrated"]["mean"].get<double>(), 2),
                  "%, largest ", fixed_text(100 * machine["calibrated"]["max"].get<double>(), 2),
                  "% of the measured time."),
              {"Predicted over measured, less one (%)"},
              {""}};
  Series fitted{"calibrated", Mark::kBars, {}, {}, {}, Colour::kCompute, false, true};
  Series held_out{"held out", Mark::kBars, {}, {}, {}, Colour::kMemory, false, true};
  chart.stacked = true;  // a bar a row, whichever series it belongs to
  const auto add = [&](Series& s, const std::string& name, double error) {
    s.x.push_back(100 * error);
    s.y.push_back(static_cast<double>(chart.y.categories.size()));
    s.notes.push_back(percent(error));
    chart.y.categories.push_back(name);
  };
  for (const ordered_json& row : machine["rows"])
    add(row["status"] == "held out" ? held_out : fitted, row["row"], row["error"]);
  Series left_out{
      "left out, predicted from the others", Mark::kBars, {}, {}, {}, Colour::kVector, false, true};
  if (machine.contains("leave_one_out"))
    for (const ordered_json& row : machine["leave_one_out"]["rows"])
      add(left_out, str(row["row"].get<std::string>(), " (left out)"), row["error"]);
  for (Series* s : {&fitted, &held_out, &left_out})
    if (!s->x.empty()) chart.series.push_back(std::move(*s));
  return chart;
}

void add_rows(Table& table, const std::string& hardware, const ordered_json& rows, const char* status) {
  for (const ordered_json& row : rows)
    table.rows.push_back({hardware, row["row"], fixed_text(row["measured_ms"], 2),
                          fixed_text(row["predicted_ms"], 2), percent(row["error"]),
                          *status ? status : row["status"].get<std::string>()});
}

Table constants(const ordered_json& machine, size_t index) {
  Table table{str("constants-", index),
              str("Constants of ", machine["hardware"].get<std::string>()),
              "Only those of status 'fitted' follow the rows; docs/sim.md explains each.",
              {"Constant", "Value", "Status", "Prior"}};
  for (const auto& [name, c] : machine["constants"].items())
    table.rows.push_back({name, number_text(c["value"], 4), c["status"],
                          c.contains("prior") ? number_text(c["prior"], 4) : ""});
  return table;
}

}  // namespace

Report calibration_report(const ordered_json& result) {
  Report report{"Calibration of the simulator", ""};
  Table rows{"rows", "Rows", "", {"Machine", "Row", "Measured (ms)", "Predicted (ms)", "Error", "Status"}};
  std::vector<Table> constant_tables;
  size_t index = 0;
  for (const ordered_json& machine : result["machines"]) {
    const std::string hardware = machine["hardware"];
    report.subtitle += str(index > 0 ? ", " : "", hardware);
    report.charts.push_back(parity_chart(machine, index));
    report.charts.push_back(error_chart(machine, index));
    add_rows(rows, hardware, machine["rows"], "");
    report.facts.push_back(
        {str(hardware, ", calibrated"), fixed_text(100 * machine["calibrated"]["mean"].get<double>(), 2),
         "% mean error",
         str("largest ", fixed_text(100 * machine["calibrated"]["max"].get<double>(), 2), "%")});
    if (machine["held_out"]["max"] != 0.0)
      report.facts.push_back(
          {str(hardware, ", held out"), fixed_text(100 * machine["held_out"]["mean"].get<double>(), 2),
           "% mean error",
           str("largest ", fixed_text(100 * machine["held_out"]["max"].get<double>(), 2), "%")});
    if (machine.contains("leave_one_out")) {
      const ordered_json& errors = machine["leave_one_out"]["errors"];
      report.facts.push_back({str(hardware, ", leave one out"),
                              fixed_text(100 * errors["mean"].get<double>(), 2), "% mean error",
                              str("largest ", fixed_text(100 * errors["max"].get<double>(), 2), "%")});
      add_rows(rows, hardware, machine["leave_one_out"]["rows"], "left out");
    }
    constant_tables.push_back(constants(machine, index));
    ++index;
  }
  report.tables = {rows};
  for (Table& table : constant_tables) report.tables.push_back(std::move(table));
  report.notes = {"Held-out and left-out rows are predicted by constants that were fitted without them.",
                  "Matmul and link efficiency trade off along a ridge: read them as a pair."};
  return report;
}

}  // namespace moge::sim
