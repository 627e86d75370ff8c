// The page of moge search: every shape's throughput, the Pareto front, the best shapes, where the base model
// stands.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sim/report.h"

namespace moge::sim {

struct SearchedMachine {
  std::string name;
  int64_t cards = 1;
  double slo_tpot_ms = 0;
};

/// `answer` is what the command prints with --json; `results` is an array of all shapes' results, in the form
/// of the answer's "top" entries.
Report search_report(const nlohmann::ordered_json& answer, const nlohmann::ordered_json& results,
                     const std::vector<SearchedMachine>& machines);

}  // namespace moge::sim
