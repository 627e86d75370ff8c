// The page of one predicted step (moge sim decode, prefill): where its time goes, how near its kernels are to
// the machine's roof, what fills the memory, and how throughput pays for latency.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sim/calibration.h"
#include "sim/chart.h"
#include "sim/report.h"

namespace moge::sim {

/// What the machine sustains: peaks times the calibrated efficiencies.
struct Roof {
  double memory_bandwidth = 0;  ///< bytes/s
  struct Peak {
    std::string name;  ///< "w8a8"
    double flops = 0;  ///< FLOP/s
  };
  std::vector<Peak> peaks;  ///< the highest first
};

/// `result` is what the command prints with --json. `curves`: tokens/s a card over the time per token, drawn
/// if there are any.
Report step_report(const nlohmann::ordered_json& result, const Roof& roof, std::vector<Series> curves);

/// One bar of a breakdown, for the pages that have one.
struct TimeShare {
  std::string name;
  double ms = 0;
  std::string bound;  ///< "compute", "memory", "vector", "network", "overhead"
};
/// Horizontal bars in the order given, coloured by what bounds them.
Chart breakdown_chart(const std::string& title, const std::string& caption,
                      const std::vector<TimeShare>& shares);

/// One bar of parts that add up, beside its limit.
struct MemoryShare {
  std::string name;
  double gib = 0;
};
Chart memory_chart(const std::vector<MemoryShare>& parts, double limit_gib);

/// The machine's constants with their status and source.
Table constants_table(const Calibration& calibration);

}  // namespace moge::sim
