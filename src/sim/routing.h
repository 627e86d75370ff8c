// What a router's choices mean for the devices that hold the experts: how many different experts a batch
// meets, and how far the busiest device exceeds the mean (arXiv 2505.21411, section 2.1). MoGE chooses K' in
// each group, so devices of whole groups are equal; plain top-K leaves it to chance.
#pragma once
#include <cstdint>

#include "spec/model_config.h"

namespace moge::sim {

/// One model's experts spread over `ep` equal parts.
class RoutingModel {
 public:
  /// `skew` s: the r-th most popular expert of a group weighs r^-s; 0: all alike. Throws UsageError for a
  /// negative one.
  RoutingModel(const spec::ModelConfig& config, int64_t ep, double skew);

  /// Different experts that `tokens` tokens meet on one device. Uniform: n (1 - (1 - K'/n)^T) for each of its
  /// groups of n.
  double distinct_experts(double tokens) const;
  /// (token, expert) pairs on a device, on average.
  double mean_rows(double tokens) const { return tokens * rows_per_token_; }
  /// Rows of the busiest device over the mean: 1 where devices hold whole groups, else
  /// 1 + E[max of ep normals] sqrt(var T_i) / mean T_i, of a device's rows T_i.
  double straggler(double tokens) const;

 private:
  double experts_ = 0;         ///< on a device
  double rows_per_token_ = 0;  ///< K / ep
  double log_unchosen_ = 0;    ///< log(1 - K'/n)
  double max_factor_ = 0;      ///< how far the largest of ep exchangeable normals lies above, in sigmas
  double chance_cv2_ = 0;      ///< of T_i, times T: squared coefficient of variation of one token's rows
  double skew_cv2_ = 0;        ///< of a device's popularity
  double limit_ = 1;           ///< a token's rows can all be on one device
  double skew_ = 0;
  int64_t group_size_ = 0;
  double topk_per_group_ = 0;
  double weight_sum_ = 0;  ///< sum of r^-s over a group
};

}  // namespace moge::sim
