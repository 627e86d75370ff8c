#include "sim/serving_summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace moge::sim {
namespace {

double ttft_ms(const Request& request, const Served& served) {
  return (served.first_token_s - request.arrival_s) * 1e3;
}
double tpot_ms(const Request& request, const Served& served) {
  return (served.finish_s - served.first_token_s) * 1e3 / static_cast<double>(request.output_tokens - 1);
}

}  // namespace

Sample::Sample(std::vector<double> values) : sorted_(std::move(values)) {
  std::ranges::sort(sorted_);
}

double Sample::mean() const {
  return empty() ? 0 : std::accumulate(sorted_.begin(), sorted_.end(), 0.0) / static_cast<double>(size());
}

double Sample::max() const {
  return empty() ? 0 : sorted_.back();
}

double Sample::quantile(double p) const {
  if (empty()) return 0;
  const auto rank = static_cast<int64_t>(std::ceil(p * static_cast<double>(size())));
  return sorted_[static_cast<size_t>(std::clamp<int64_t>(rank, 1, static_cast<int64_t>(size())) - 1)];
}

ServingSummary summarize(std::span<const Request> trace, const ServingRun& run) {
  dcheck(trace.size() == run.served.size(), trace.size(), " requests, ", run.served.size(), " served");
  ServingSummary s;
  std::vector<double> ttft, tpot, e2e;
  for (size_t i = 0; i < trace.size(); ++i) {
    ttft.push_back(ttft_ms(trace[i], run.served[i]));
    if (trace[i].output_tokens > 1) tpot.push_back(tpot_ms(trace[i], run.served[i]));
    e2e.push_back((run.served[i].finish_s - trace[i].arrival_s) * 1e3);
    s.input_tokens += trace[i].input_tokens;
    s.output_tokens += trace[i].output_tokens;
  }
  s.ttft_ms = Sample(std::move(ttft));
  s.tpot_ms = Sample(std::move(tpot));
  s.e2e_ms = Sample(std::move(e2e));
  s.output_tokens_per_s = static_cast<double>(s.output_tokens) / run.end_s;
  s.total_tokens_per_s = static_cast<double>(s.input_tokens + s.output_tokens) / run.end_s;
  s.requests_per_s = static_cast<double>(trace.size()) / run.end_s;
  return s;
}

bool Objective::met_by(const ServingSummary& summary) const {
  return (!ttft_ms || summary.ttft_ms.quantile(share) <= *ttft_ms) &&
         (!tpot_ms || summary.tpot_ms.quantile(share) <= *tpot_ms);
}

std::string Objective::str() const {
  std::string text;
  if (ttft_ms) text = moge::str("TTFT <= ", *ttft_ms, " ms");
  if (tpot_ms) text += moge::str(ttft_ms ? " and " : "", "TPOT <= ", *tpot_ms, " ms");
  return moge::str(text.empty() ? "no limits" : text, " for ", share * 100, "%");
}

double share_within(const Objective& objective, std::span<const Request> trace, const ServingRun& run) {
  int64_t within = 0;
  for (size_t i = 0; i < trace.size(); ++i) {
    const bool first = !objective.ttft_ms || sim::ttft_ms(trace[i], run.served[i]) <= *objective.ttft_ms;
    const bool rest = !objective.tpot_ms || trace[i].output_tokens == 1 ||
                      sim::tpot_ms(trace[i], run.served[i]) <= *objective.tpot_ms;
    within += first && rest;
  }
  return static_cast<double>(within) / static_cast<double>(trace.size());
}

ReplicaSearch find_replicas(std::span<const Request> trace, const SchedulerPolicy& policy,
                            const StepTime& step_time, const Objective& objective, ThreadPool& pool) {
  ReplicaSearch search;
  const auto meets = [&](int64_t replicas) {
    ServingSummary summary = summarize(trace, simulate_replicas(trace, policy, step_time, replicas, pool));
    const bool met = objective.met_by(summary);
    search.trials.push_back({replicas, std::move(summary), met});
    return met;
  };
  const auto most = static_cast<int64_t>(trace.size());
  int64_t too_few = 0, enough = 1;
  while (!meets(enough) && enough < most) {
    too_few = enough;
    enough = std::min(2 * enough, most);
  }
  if (search.trials.back().met) {
    while (enough - too_few > 1) {
      const int64_t middle = too_few + (enough - too_few) / 2;
      (meets(middle) ? enough : too_few) = middle;
    }
    search.replicas = enough;
  }
  std::ranges::sort(search.trials, {}, &ReplicaTrial::replicas);
  return search;
}

}  // namespace moge::sim
