// Quantiles of a few timings.
#pragma once
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace moge::cli {

/// The value nearest to the quantile, 0 <= q <= 1; of two in the middle the larger. `values`: at least one.
inline double quantile(std::vector<double> values, double q) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(std::lround(q * static_cast<double>(values.size() - 1)))];
}
inline double median(std::vector<double> values) {
  return quantile(std::move(values), 0.5);
}

}  // namespace moge::cli
