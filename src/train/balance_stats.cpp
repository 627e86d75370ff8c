#include "train/balance_stats.h"

#include <algorithm>
#include <numeric>

namespace moge::train {

BalanceStats balance_stats(std::span<const int32_t> counts, int64_t num_devices, int64_t num_tokens) {
  if (counts.empty() || num_tokens == 0) return {};
  const size_t per_device = counts.size() / static_cast<size_t>(num_devices);
  const auto rows = [&](size_t device) {
    return std::accumulate(counts.begin() + static_cast<int64_t>(device * per_device),
                           counts.begin() + static_cast<int64_t>((device + 1) * per_device), int64_t{0});
  };
  int64_t low = rows(0), high = rows(0);
  for (size_t d = 1; d < static_cast<size_t>(num_devices); ++d) {
    low = std::min(low, rows(d));
    high = std::max(high, rows(d));
  }
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
  return {static_cast<double>(high - low) / static_cast<double>(num_tokens), *least / mean, *most / mean};
}

}  // namespace moge::train
