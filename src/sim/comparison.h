// A measured run of our engine (`moge bench decode | prefill --profile --json`) beside the step that was
// predicted for it, operator by operator.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sim/step.h"

namespace moge::sim {

/// What such a run says of itself.
struct MeasuredRun {
  bool decode = true;
  std::string device;
  std::string model;
  int64_t layers = 0;
  std::string weights, kv;  ///< "i8", "fp8_e4m3", "bf16"
  int64_t batch = 0;
  double context = 0;  ///< decode: cached positions, the mean over the timed steps; prefill: prompt tokens
  double seconds = 0;  ///< a step, or the time to the first token
  std::optional<double> host_seconds;  ///< of a profiled prefill: without an operator at work
  struct Op {
    std::string op;                    ///< the engine's: "quant_matmul"
    std::vector<double> call_seconds;  ///< between events around each call
  };
  std::vector<Op> ops;

  StepLoad load() const;
  Precision precision() const;
};

/// Throws FileError: broken JSON, missing keys, numbers that are not positive.
MeasuredRun load_measured_run(const std::filesystem::path& file);

/// One operator, all layers together.
struct ComparedOp {
  std::string op;
  double measured_s = 0;
  double predicted_s = 0;  ///< 0: not part of the model
  Basis basis = Basis::kFormula;
  double error() const { return predicted_s / measured_s - 1; }
};

struct Comparison {
  double measured_s = 0;
  double predicted_s = 0;
  std::vector<ComparedOp> ops;  ///< most measured time first
  double error() const { return predicted_s / measured_s - 1; }
  /// Mean of |error| over operators, each weighing its measured time.
  double mean_op_error() const;
};

/// `step_s` and `spans` are seconds(run.load()) and explain(run.load()) of the run's model, the
/// second with operators timed between events, as the run's profile timed them: such times add up to more
/// than a step, because events end the overlap of neighbouring kernels.
Comparison compare(const MeasuredRun& run, double step_s, const StepBreakdown& spans);

}  // namespace moge::sim
