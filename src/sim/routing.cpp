#include "sim/routing.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace moge::sim {

namespace {

/// E[max] of n independent standard normals: Blom's quantile approximation (within 1.5%), the quantile by
/// bisection.
double expected_normal_max(int64_t n) {
  if (n <= 1) return 0;
  const double p = (static_cast<double>(n) - 0.375) / (static_cast<double>(n) + 0.25);
  double low = 0;
  double high = 10;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return low;
}

}  // namespace

RoutingModel::RoutingModel(const spec::ModelConfig& c, int64_t ep, double skew) : skew_(skew) {
  check<UsageError>(skew >= 0 && skew <= 10, "skew ", skew, ": expected from 0 to 10");
  if (!c.is_moe()) return;
  const auto E = static_cast<double>(c.num_experts);
  const auto K = static_cast<double>(c.num_experts_per_tok);
  const auto R = static_cast<double>(ep);
  group_size_ = c.experts_per_group();
  topk_per_group_ = static_cast<double>(c.topk_per_group());
  experts_ = E / R;
  rows_per_token_ = K / R;
  log_unchosen_ = std::log1p(-std::min(1.0, topk_per_group_ / static_cast<double>(group_size_)));
  double squares = 0;
  for (int64_t r = 1; r <= group_size_; ++r) {
    const double weight = std::pow(static_cast<double>(r), -skew);
    weight_sum_ += weight;
    squares += weight * weight;
  }
  if (ep == 1 || c.num_expert_groups % ep == 0) return;
  // A device holds m = E / R of the experts. Of one token's K different choices, hypergeometrically many are
  // there: mean K / R, variance K / R (1 - 1/R) (E - K) / (E - 1). The R counts add up to K, so each pair has
  // the correlation -1 / (R - 1), and their maximum lies sqrt(R / (R - 1)) further out than independent
  // ones'.
  max_factor_ = expected_normal_max(ep) * std::sqrt(R / (R - 1));
  chance_cv2_ = E > 1 ? (1 - 1 / R) * (E - K) / (E - 1) * R / K : 0;
  // Popularities placed at random: the mean of m of E without replacement.
  const double popularity_cv2 = squares * static_cast<double>(group_size_) / (weight_sum_ * weight_sum_) - 1;
  skew_cv2_ = E > 1 ? popularity_cv2 / experts_ * (E - experts_) / (E - 1) : 0;
  limit_ = std::min(K, experts_) / rows_per_token_;
}

double RoutingModel::distinct_experts(double tokens) const {
  if (experts_ == 0) return 0;
  if (skew_ == 0) return -experts_ * std::expm1(tokens * log_unchosen_);
  double distinct = 0;  // of one group
  for (int64_t r = 1; r <= group_size_; ++r) {
    const double chosen =
        std::min(1.0, topk_per_group_ * std::pow(static_cast<double>(r), -skew_) / weight_sum_);
    distinct += 1 - std::pow(1 - chosen, tokens);
  }
  return distinct * experts_ / static_cast<double>(group_size_);
}

double RoutingModel::straggler(double tokens) const {
  if (max_factor_ == 0 || tokens <= 0) return 1;
  return std::min(limit_, 1 + max_factor_ * std::sqrt(chance_cv2_ / tokens + skew_cv2_));
}

}  // namespace moge::sim
