// What users see of a serving run (time to the first token, time per output token, throughput), and how many
// machines it takes until they see what was promised.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "sim/serving.h"

namespace moge::sim {

/// Values in ascending order, for any quantile.
class Sample {
 public:
  Sample() = default;
  explicit Sample(std::vector<double> values);
  bool empty() const { return sorted_.empty(); }
  size_t size() const { return sorted_.size(); }
  double mean() const;  ///< 0 when empty, as are the others
  double max() const;
  /// The smallest value that at least p (0..1) of the values do not exceed.
  double quantile(double p) const;

 private:
  std::vector<double> sorted_;
};

struct ServingSummary {
  Sample ttft_ms;  ///< arrival to first token
  Sample tpot_ms;  ///< first to last token over the tokens behind the first; requests of one token have none
  Sample e2e_ms;   ///< arrival to last token
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  double output_tokens_per_s = 0;  ///< until the last request is done; likewise the next two
  double total_tokens_per_s = 0;   ///< prompts and answers
  double requests_per_s = 0;
};
ServingSummary summarize(std::span<const Request> trace, const ServingRun& run);

/// A service level: `share` of the requests must not be slower than this. An absent limit holds always.
struct Objective {
  std::optional<double> ttft_ms, tpot_ms;
  double share = 0.99;

  /// Whether the share-quantiles of both samples are within the limits.
  bool met_by(const ServingSummary& summary) const;
  std::string str() const;  ///< "TTFT <= 500 ms and TPOT <= 50 ms for 99%"
};
/// The share of requests that meet both limits (goodput over throughput).
double share_within(const Objective& objective, std::span<const Request> trace, const ServingRun& run);

struct ReplicaTrial {
  int64_t replicas = 0;
  ServingSummary summary;
  bool met = false;
};
struct ReplicaSearch {
  int64_t replicas = 0;              ///< the fewest that meet the objective; 0: no number does
  std::vector<ReplicaTrial> trials;  ///< by replicas
};
/// Doubles the machines until the objective is met (or every request has one to itself), then bisects.
ReplicaSearch find_replicas(std::span<const Request> trace, const SchedulerPolicy& policy,
                            const StepTime& step_time, const Objective& objective, ThreadPool& pool);

}  // namespace moge::sim
