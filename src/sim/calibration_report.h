// The page of moge sim calibrate: what was measured, what is predicted, and from which constants.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "sim/report.h"

namespace moge::sim {

/// `result` is what the command prints with --json.
Report calibration_report(const nlohmann::ordered_json& result);

}  // namespace moge::sim
