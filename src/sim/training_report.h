// The page of moge sim train: a training step's parts, its memory, and a plan against its baseline.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "sim/report.h"

namespace moge::sim {

/// `result` is what the command prints with --json.
Report training_report(const nlohmann::ordered_json& result);

}  // namespace moge::sim
