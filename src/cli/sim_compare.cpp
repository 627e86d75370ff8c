// moge sim compare: runs of our engine beside what the simulator says of them.
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/model_path.h"
#include "cli/report_options.h"
#include "cli/sim_setup.h"
#include "core/error.h"
#include "core/log.h"
#include "sim/comparison.h"
#include "sim/comparison_report.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

constexpr double kMilli = 1e3;

struct SimCompareOptions {
  SimMachineOptions machine;
  std::string ops = "auto";
  std::vector<std::string> runs;
  ReportOptions files;

  std::vector<Option> options() {
    return joined(joined(machine.options(), {sim_ops_option(&ops),
                                             {.name = "run",
                                              .target = &runs,
                                              .value = "FILE",
                                              .help = "What moge bench decode | prefill --profile --json "
                                                      "wrote; may be repeated",
                                              .required = true}}),
                  files.options());
  }
};

/// `machine` predicts a run, `spans` what its profile saw of each operator.
ordered_json compare_run(const SimMachine& machine, const SimMachine& spans, const std::string& file) {
  const sim::MeasuredRun run = sim::load_measured_run(file);
  if (machine.table && machine.table->device != run.device)
    log_warning(file, " was measured on ", run.device, ", the operators on ", machine.table->device);
  spec::ModelConfig model = spec::load_model_config(find_model(run.model));
  check<FileError>(run.layers <= model.num_hidden_layers, file, ": ", run.layers, " layers, but ", run.model,
                   " has ", model.num_hidden_layers);
  model.num_hidden_layers = run.layers;
  const auto step = [&](const SimMachine& m) {
    return sim::StepModel(model, m.device, run.precision(), {}, 0, m.table.get());
  };
  const sim::Comparison c =
      sim::compare(run, step(machine).seconds(run.load()), step(spans).explain(run.load()));
  ordered_json ops = ordered_json::array();
  for (const sim::ComparedOp& op : c.ops) {
    ops.push_back({{"op", op.op},
                   {"measured_ms", op.measured_s * kMilli},
                   {"predicted_ms", op.predicted_s * kMilli},
                   {"error", nullptr},
                   {"basis", op.predicted_s > 0 ? sim::name_of(op.basis) : ""}});
    if (op.measured_s > 0 && op.predicted_s > 0) ops.back()["error"] = op.error();
  }
  return {{"run", str(run.decode ? "decode " : "prefill ", run.batch, " x ", run.context)},
          {"file", file},
          {"device", run.device},
          {"model", run.model},
          {"weights", run.weights},
          {"kv", run.kv},
          {"measured_ms", c.measured_s * kMilli},
          {"predicted_ms", c.predicted_s * kMilli},
          {"error", c.error()},
          {"mean_op_error", c.mean_op_error()},
          {"ops", ops}};
}

/// Tables that documents can take as they are.
void print(const ordered_json& result) {
  const auto error = [](const ordered_json& share) {
    std::ostringstream out;
    if (!share.is_null())
      out << std::fixed << std::setprecision(1) << std::showpos << 100 * share.get<double>() << '%';
    return out.str();
  };
  std::cout << std::fixed << std::setprecision(3) << "| run | measured, ms | predicted | error |\n"
            << "|---|---|---|---|\n";
  for (const ordered_json& run : result["runs"])
    std::cout << "| " << run["run"].get<std::string>() << " | " << run["measured_ms"].get<double>() << " | "
              << run["predicted_ms"].get<double>() << " | " << error(run["error"]) << " |\n";
  for (const ordered_json& run : result["runs"]) {
    std::cout << '\n'
              << run["run"].get<std::string>() << ": mean error of an operator " << std::setprecision(1)
              << 100 * run["mean_op_error"].get<double>() << "%\n\n"
              << std::setprecision(3)
              << "| op | measured, ms | predicted | error | basis |\n|---|---|---|---|---|\n";
    for (const ordered_json& op : run["ops"])
      std::cout << "| " << op["op"].get<std::string>() << " | " << op["measured_ms"].get<double>() << " | "
                << op["predicted_ms"].get<double>() << " | " << error(op["error"]) << " | "
                << op["basis"].get<std::string>() << " |\n";
  }
}

void sim_compare(const SimCompareOptions& o) {
  const SimMachine machine = load_machine(o.machine, o.ops);
  const SimMachine spans = load_machine(o.machine, o.ops, sim::OpTiming::kBetweenEvents);
  ordered_json runs = ordered_json::array();
  for (const std::string& file : o.runs) runs.push_back(compare_run(machine, spans, file));
  const ordered_json out = {{"hardware", o.machine.hardware}, {"ops", o.ops}, {"runs", runs}};
  if (o.files.any()) o.files.write(sim::comparison_report(out), out);
  if (o.files.json)
    print_json(out, 2);
  else
    print(out);
}

}  // namespace

Command sim_compare_command() {
  return make_command<SimCompareOptions>(
      {"sim compare", "runs measured on a GPU beside their prediction, operator by operator",
       "Model, batch, context and formats are the run's own.\n\n"
       "  moge bench decode pangu-pro-moe-72b-a16b --random-weights --dtype i8 --kv-dtype i8 \\\n"
       "    --profile --json > decode.json\n"
       "  moge sim compare --hardware h200-sxm --run decode.json\n"},
      sim_compare);
}

}  // namespace moge::cli
