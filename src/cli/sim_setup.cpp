#include "cli/sim_setup.h"

#include "cli/config_path.h"
#include "cli/model_path.h"
#include "core/error.h"
#include "sim/plan_file.h"

namespace moge::cli {

std::vector<Option> SimMachineOptions::options() {
  return {{.name = "hardware",
           .target = &hardware,
           .value = "NAME",
           .help = "A file of configs/hardware, or the path of one like it",
           .required = true},
          {.name = "calibration",
           .target = &calibration,
           .value = "FILE",
           .help = "Of the machine's constants (default: configs/sim, by the machine's name)"}};
}

sim::Device load_device(const std::string& hardware, const std::optional<std::string>& calibration) {
  const std::filesystem::path file = find_config_file("hardware", hardware);
  const std::filesystem::path constants = find_config_file("sim", calibration.value_or(file.stem().string()));
  return sim::make_device(spec::load_hardware(file), sim::load_calibration(constants));
}

Option sim_model_option(std::string* model) {
  return {.name = "model",
          .target = model,
          .value = "MODEL",
          .help = "A Hugging Face directory or a name under configs/models",
          .required = true};
}

Option sim_threads_option(int64_t* threads) {
  return {.name = "threads",
          .target = threads,
          .value = "N",
          .help = "0: all CPUs; the result is the same",
          .min = 0,
          .max = 1024};
}

Option sim_ops_option(std::string* ops) {
  return {.name = "ops",
          .target = ops,
          .value = "auto|none|FILE",
          .help =
              "Measured operators of the device (moge bench ops --json), used where they fit; auto: those "
              "of configs/ops, if any"};
}

SimMachine load_machine(const SimMachineOptions& o, const std::string& ops, sim::OpTiming timing) {
  SimMachine machine{load_device(o.hardware, o.calibration), nullptr};
  std::optional<std::filesystem::path> file;
  if (ops == "auto") {
    const std::string name = std::filesystem::path(o.hardware).stem().string() + ".json";
    for (const std::filesystem::path& folder : config_folders("ops")) {
      std::error_code absent;
      if (!file && std::filesystem::is_regular_file(folder / name, absent)) file = folder / name;
    }
  } else if (ops != "none") {
    file = ops;
  }
  if (file) machine.table = std::make_unique<sim::OpTable>(sim::load_op_table(*file, timing));
  return machine;
}

std::vector<Option> SimSetupOptions::options() {
  return joined(
      joined({sim_model_option(&model)}, machine.options()),
      {{.name = "cards",
        .target = &cards,
        .value = "N",
        .help = "What is bought as one: an NPU or GPU; of the 300I Duo a card of two chips",
        .min = 1,
        .max = 1 << 20},
       {.name = "weights", .target = &weights, .value = "FORMAT", .help = "bf16, fp16, w8a8, w4a8 or fp8"},
       {.name = "kv", .target = &kv, .value = "FORMAT", .help = "bf16, fp16, int8, fp8 or int4"},
       {.name = "plan",
        .target = &plan,
        .value = "auto|best|FILE",
        .help =
            "auto: the best of those that models are served with (docs/sim.md); best: of every even split"},
       {.name = "skew",
        .target = &skew,
        .value = "S",
        .help = "The router's r-th favourite expert weighs r^-S; 0: all alike",
        .min = 0,
        .max = 10},
       sim_ops_option(&ops)});
}

SimSetup load_setup(const SimSetupOptions& o) {
  SimSetup s;
  s.model = spec::load_model_config(find_model(o.model));
  SimMachine machine = load_machine(o.machine, o.ops);
  s.device = std::move(machine.device);
  s.table = std::move(machine.table);
  s.precision = {sim::weight_format(o.weights), sim::kv_format(o.kv)};
  s.cards = o.cards;
  s.devices = o.cards * s.device.hardware.devices_per_card;
  s.skew = o.skew;
  if (o.plan == "best")
    s.space = sim::PlanSpace::kAll;
  else if (o.plan != "auto")
    s.plan = sim::load_plan(find_config_file("plans", o.plan));
  return s;
}

sim::PlanSearch SimSetup::search() const {
  if (plan) return {model, device, precision, devices, *plan, skew, table.get()};
  return {model, device, precision, devices, space, skew, table.get()};
}

}  // namespace moge::cli
