// How evenly a batch's tokens spread over experts and groups, from counts alone.
#pragma once
#include <cstdint>
#include <span>

namespace moge::train {

struct BalanceStats {
  double imbalance_score = 0;  ///< arXiv 2505.21411, eq. 3: (max - min rows of a group) / tokens
  double min_share = 0;        ///< rows of the least used expert, as a multiple of the mean (1: balanced)
  double max_share = 0;        ///< of the most used one
};

/// counts [E]: tokens that chose each expert; `num_devices` equal, contiguous sets of experts.
BalanceStats balance_stats(std::span<const int32_t> counts, int64_t num_devices, int64_t num_tokens);

}  // namespace moge::train
