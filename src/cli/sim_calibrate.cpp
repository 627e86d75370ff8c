// moge sim calibrate: fits a machine's constants to measured rows and says how well they are met.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/config_path.h"
#include "cli/json_text.h"
#include "cli/model_path.h"
#include "cli/report_options.h"
#include "cli/sim_setup.h"
#include "core/error.h"
#include "core/files.h"
#include "core/nearest.h"
#include "sim/calibrate.h"
#include "sim/calibration_report.h"
#include "sim/rows.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

constexpr double kMilli = 1e3;

struct SimCalibrateOptions {
  std::filesystem::path rows;
  std::vector<std::string> hold_out;
  std::optional<std::string> hardware;
  std::optional<std::string> calibration;
  bool leave_one_out = false;
  bool frozen = false;
  std::optional<std::string> write;
  ReportOptions files;

  std::vector<Option> options() {
    return joined(
        {{.name = "rows",
          .target = &rows,
          .value = "FILE",
          .help = "Measured steps, as configs/sim/rows.toml",
          .required = true},
         {.name = "hold-out",
          .target = &hold_out,
          .value = "ID",
          .help = "Rows that are predicted and not fitted to, with commas between; may be repeated"},
         {.name = "hardware",
          .target = &hardware,
          .value = "NAME",
          .help = "Only this machine's rows (default: every machine of FILE)"},
         {.name = "calibration",
          .target = &calibration,
          .value = "FILE",
          .help = "Of the constants and their priors (default: configs/sim, by the machine's name)"},
         {.name = "leave-one-out", .target = &leave_one_out, .help = "Predict each row from the others, too"},
         {.name = "frozen", .target = &frozen, .help = "Don't fit: the constants as they are in the file"},
         {.name = "write",
          .target = &write,
          .value = "FILE",
          .help = "Of one machine: write the fitted constants there"}},
        files.options());
  }
};

ordered_json rows_json(const std::vector<sim::RowError>& rows) {
  ordered_json list = ordered_json::array();
  for (const sim::RowError& row : rows)
    list.push_back({{"row", row.id},
                    {"measured_ms", row.measured_s * kMilli},
                    {"predicted_ms", row.predicted_s * kMilli},
                    {"error", row.error()},
                    {"status", row.held_out ? "held out" : "calibrated"}});
  return list;
}

ordered_json summary_json(const std::vector<sim::RowError>& rows, bool held_out) {
  const sim::ErrorSummary s = sim::summary(rows, held_out);
  return {{"mean", s.mean}, {"max", s.max}};
}

/// "a,b" and "c" are three ids.
std::vector<std::string> split_ids(const std::vector<std::string>& lists) {
  std::vector<std::string> ids;
  for (const std::string& list : lists) {
    std::istringstream parts(list);
    for (std::string id; std::getline(parts, id, ',');) ids.push_back(id);
  }
  return ids;
}

ordered_json calibrate_machine(const SimCalibrateOptions& o, const std::vector<std::string>& held_out,
                               const std::string& name, std::vector<sim::Observation> rows) {
  const std::filesystem::path file = find_config_file("hardware", name);
  const spec::Hardware hardware = spec::load_hardware(file);
  sim::Calibration constants =
      sim::load_calibration(find_config_file("sim", o.calibration.value_or(file.stem().string())));
  std::vector<sim::Observation> fitted_rows;
  for (sim::Observation& row : rows) {
    row.devices *= hardware.devices_per_card;
    if (std::ranges::find(held_out, row.id) == held_out.end()) fitted_rows.push_back(row);
  }
  // With every row held out there is nothing to fit: the file's constants predict them.
  if (!o.frozen && !fitted_rows.empty()) constants = sim::fit(hardware, constants, fitted_rows);
  const std::vector<sim::RowError> table = sim::errors(hardware, constants, rows, held_out);
  ordered_json out = {{"hardware", name},
                      {"rows", rows_json(table)},
                      {"calibrated", summary_json(table, false)},
                      {"held_out", summary_json(table, true)}};
  if (o.leave_one_out && !fitted_rows.empty()) {
    const std::vector<sim::RowError> left_out = sim::leave_one_out(hardware, constants, fitted_rows);
    out["leave_one_out"] = {{"rows", rows_json(left_out)}, {"errors", summary_json(left_out, true)}};
  }
  ordered_json values;
  for (const sim::ConstantField& field : sim::constant_fields()) {
    const sim::Constant& c = constants.*field.member;
    values[field.name] = {{"value", c.value}, {"status", c.status}};
    if (c.fitted()) values[field.name]["prior"] = c.prior;
  }
  out["constants"] = values;
  if (o.write) atomic_write_file(*o.write, sim::to_toml(constants));
  return out;
}

void print_rows(const ordered_json& rows) {
  for (const ordered_json& row : rows)
    std::cout << std::left << std::setw(24) << row["row"].get<std::string>() << std::right << std::fixed
              << std::setprecision(2) << std::setw(12) << row["measured_ms"].get<double>() << std::setw(12)
              << row["predicted_ms"].get<double>() << std::showpos << std::setw(9)
              << 100 * row["error"].get<double>() << std::noshowpos << "%  "
              << row["status"].get<std::string>() << '\n';
}

void print_summary(const char* label, const ordered_json& s) {
  std::cout << std::left << std::setw(24) << label << std::right << std::fixed << std::setprecision(2)
            << "mean " << 100 * s["mean"].get<double>() << "%, max " << 100 * s["max"].get<double>() << "%\n";
}

void print(const ordered_json& m, bool any_held_out) {
  std::cout << m["hardware"].get<std::string>() << "\n\n"
            << std::left << std::setw(24) << "row" << std::right << std::setw(12) << "measured ms"
            << std::setw(12) << "predicted" << std::setw(9) << "error" << '\n';
  print_rows(m["rows"]);
  print_summary("calibrated", m["calibrated"]);
  if (any_held_out) print_summary("held out", m["held_out"]);
  if (m.contains("leave_one_out")) {
    std::cout << "\nleave one out\n";
    print_rows(m["leave_one_out"]["rows"]);
    print_summary("leave one out", m["leave_one_out"]["errors"]);
  }
  std::cout << '\n';
  for (const auto& [name, c] : m["constants"].items()) {
    std::cout << std::left << std::setw(24) << name << std::right << std::defaultfloat << std::setprecision(4)
              << std::setw(10) << c["value"].get<double>() << "  " << c["status"].get<std::string>();
    if (c.contains("prior")) std::cout << " (prior " << c["prior"].get<double>() << ")";
    std::cout << '\n';
  }
  std::cout << '\n';
}

void sim_calibrate(const SimCalibrateOptions& o) {
  const std::vector<std::string> held_out = split_ids(o.hold_out);
  std::vector<sim::MachineRows> machines = sim::load_rows(
      o.rows, [](const std::string& name) { return spec::load_model_config(find_model(name)); });
  std::vector<std::string> names;
  std::vector<std::string> ids;
  for (const auto& [name, rows] : machines) {
    names.push_back(name);
    for (const sim::Observation& row : rows) ids.push_back(row.id);
  }
  for (const std::string& id : held_out)
    check<UsageError>(std::ranges::find(ids, id) != ids.end(), "--hold-out ", id, ": no such row",
                      did_you_mean(id, ids));
  if (o.hardware) {
    std::erase_if(machines, [&](const auto& m) { return m.hardware != *o.hardware; });
    check<UsageError>(!machines.empty(), o.rows.string(), " has no rows of ", *o.hardware,
                      did_you_mean(*o.hardware, names));
  }
  check<UsageError>(!o.write || machines.size() == 1, "--write is of one machine: choose it by --hardware");
  ordered_json all = ordered_json::array();
  for (const auto& [name, rows] : machines) all.push_back(calibrate_machine(o, held_out, name, rows));
  const ordered_json out{{"machines", all}};
  if (o.files.any()) o.files.write(sim::calibration_report(out), out);
  if (o.files.json) {
    print_json(out, 2);
    return;
  }
  for (const ordered_json& machine : all) print(machine, !o.hold_out.empty());
}

}  // namespace

Command sim_calibrate_command() {
  return make_command<SimCalibrateOptions>(
      {"sim calibrate", "fits a machine's constants to measured rows; prints predicted against measured",
       "Only constants of status 'fitted' move, at most seven; held-out rows are predicted by what the "
       "others\n"
       "gave.\n\n"
       "  moge sim calibrate --rows configs/sim/rows.toml --leave-one-out\n"
       "  moge sim calibrate --rows configs/sim/rows.toml --hold-out a2-72b-decode-228\n"},
      sim_calibrate);
}

}  // namespace moge::cli
