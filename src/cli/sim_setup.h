// What the simulator's commands have in common: a model on a number of cards, in a format.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "cli/options.h"
#include "sim/device.h"
#include "sim/op_table.h"
#include "sim/plan_search.h"
#include "sim/speculation.h"
#include "spec/model_config.h"

namespace moge::cli {

/// The flags of `moge sim ...` that choose a machine, by themselves for commands on several models.
struct SimMachineOptions {
  std::string hardware;
  std::optional<std::string> calibration;

  std::vector<Option> options();
};

/// A machine's file and its calibration, by the same name unless another is given.
sim::Device load_device(const std::string& hardware, const std::optional<std::string>& calibration);

/// The device and what was measured on it.
struct SimMachine {
  sim::Device device;
  std::unique_ptr<sim::OpTable> table;  ///< null: nothing
};
/// `ops`: "auto" (configs/ops, by the machine's name, where there is one), "none" or a file.
SimMachine load_machine(const SimMachineOptions& machine, const std::string& ops,
                        sim::OpTiming timing = sim::OpTiming::kInChain);

/// Flags that several of the simulator's commands have.
Option sim_model_option(std::string* model);
Option sim_threads_option(int64_t* threads);
Option sim_ops_option(std::string* ops);

struct SimSetupOptions {
  std::string model;
  SimMachineOptions machine;
  int64_t cards = 1;
  std::string weights = "w8a8";
  std::string kv = "fp16";
  std::string plan = "auto";
  double skew = 0;
  std::string ops = "auto";

  std::vector<Option> options();
};

/// All of it loaded and checked.
struct SimSetup {
  spec::ModelConfig model;
  sim::Device device;
  sim::Precision precision;
  int64_t cards = 1;
  int64_t devices = 1;
  std::optional<spec::ParallelPlan> plan;  ///< --plan FILE
  sim::PlanSpace space = sim::PlanSpace::kServed;
  double skew = 0;
  std::unique_ptr<sim::OpTable> table;  ///< --ops

  sim::PlanSearch search() const;
};
SimSetup load_setup(const SimSetupOptions& options);

}  // namespace moge::cli
