// Charts as SVG, drawn here: for documents, and for whoever turns them into PNG or PDF. Light colours on
// white.
#pragma once
#include <string>
#include <vector>

#include "sim/chart.h"

namespace moge::sim {

/// One picture, 900 units wide, with the charts below each other.
std::string svg(const std::vector<Chart>& charts);

/// About `count` round values (1, 2 or 5 times a power of ten) that lie in [low, high].
std::vector<double> round_ticks(double low, double high, int count);
/// For a logarithmic axis: the powers of ten in [low, high], with twice and five times them where those are
/// few, or round numbers where even those are. 0 < low <= high.
std::vector<double> log_ticks(double low, double high);

}  // namespace moge::sim
