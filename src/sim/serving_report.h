// The page of a serving run (moge sim serve): how long users wait, what the queue does, how many cards it
// takes.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "sim/fleet.h"
#include "sim/report.h"

namespace moge::sim {

/// `result` is what the command prints with --json; `trials` are those of --find-cards, or none.
Report serving_report(const nlohmann::ordered_json& result, std::span<const Request> trace,
                      const ServingChoice& choice, const Objective& objective,
                      const std::vector<FleetTrial>& trials);

}  // namespace moge::sim
