// Fits a machine's constants (those of status "fitted") to measured steps: the largest posterior probability
// under log-normal priors and a log-normal error of kRowSigma a row,
//
//   minimise  sum_rows (ln predicted / measured)^2 / kRowSigma^2 + sum_constants (ln value / prior)^2 /
//   spread^2
//
// by Levenberg-Marquardt in the logarithms. The priors keep what few rows cannot tell apart near where other
// sources put it, and let one row be left out.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "sim/calibration.h"
#include "sim/plan_search.h"
#include "sim/precision.h"
#include "spec/hardware.h"
#include "spec/model_config.h"

namespace moge::sim {

inline constexpr double kRowSigma = 0.02;

/// One measured step.
struct Observation {
  std::string id;
  spec::ModelConfig model;
  Precision precision;
  int64_t devices = 1;
  std::optional<spec::ParallelPlan> plan;  ///< without: the fastest
  StepLoad load;
  double cached_requests = 0;
  double cached_positions = 0;
  double measured_s = 0;
};

double predict(const spec::Hardware& hardware, const Calibration& calibration, const Observation& row);

/// `start` with its fitted constants moved. Throws UsageError if it has more fitted constants than
/// kMaxFitted, or none, or no rows are given.
inline constexpr int kMaxFitted = 7;
Calibration fit(const spec::Hardware& hardware, const Calibration& start,
                const std::vector<Observation>& rows);

struct RowError {
  std::string id;
  double measured_s = 0;
  double predicted_s = 0;
  bool held_out = false;
  double error() const { return predicted_s / measured_s - 1; }
};

struct ErrorSummary {
  double mean = 0;  ///< of absolute relative errors
  double max = 0;
};
/// Of the rows that are (not) held out; zeros if there are none.
ErrorSummary summary(const std::vector<RowError>& rows, bool held_out);

std::vector<RowError> errors(const spec::Hardware& hardware, const Calibration& calibration,
                             const std::vector<Observation>& rows, const std::vector<std::string>& held_out);
/// Each row as the constants predict it that were fitted to the others.
std::vector<RowError> leave_one_out(const spec::Hardware& hardware, const Calibration& start,
                                    const std::vector<Observation>& rows);

}  // namespace moge::sim
