// The page of moge sim compare: measured and predicted runs, operator by operator.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "sim/report.h"

namespace moge::sim {

/// `result` is what the command prints with --json.
Report comparison_report(const nlohmann::ordered_json& result);

}  // namespace moge::sim
