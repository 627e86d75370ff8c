#include "sim/fleet.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "sim/report.h"

namespace moge::sim {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

/// Mean cached positions of a request half way through its answer.
double mean_positions(std::span<const Request> trace) {
  double sum = 0;
  for (const Request& r : trace)
    sum += static_cast<double>(r.input_tokens) + static_cast<double>(r.output_tokens) / 2;
  return sum / static_cast<double>(trace.size());
}

/// Plans that decode some number of requests, up to max_running, faster than all others. Memory is not looked
/// at: with_cache() does.
std::vector<const StepModel*> fast_plans(const PlanSearch& search, std::span<const Request> trace,
                                         const SchedulerPolicy& policy) {
  std::vector<const StepModel*> plans;
  const double positions = mean_positions(trace);
  for (int64_t batch = 1; batch <= policy.max_running; batch *= 2) {
    const StepLoad load =
        decode_load(static_cast<double>(batch), positions, static_cast<double>(policy.draft_tokens));
    const StepModel* best = nullptr;
    double best_seconds = 0;
    for (const StepModel& model : search.models()) {
      if (!with_cache(policy, model)) continue;
      const double seconds = model.seconds(load);
      if (!best || seconds < best_seconds) best = &model, best_seconds = seconds;
    }
    if (best && std::ranges::find(plans, best) == plans.end()) plans.push_back(best);
  }
  return plans;
}

/// Why no plan has room for a cache: the one that comes nearest.
std::string no_room(const PlanSearch& search, const SchedulerPolicy& policy) {
  double least = 0, limit = 0;
  for (const StepModel& model : search.models()) {
    const DeviceMemory m =
        model.memory(static_cast<double>(policy.max_running), 0, static_cast<double>(policy.max_step_tokens));
    if (least == 0 || m.total() < least) least = m.total(), limit = m.limit;
  }
  const double over = least - limit;
  return str("no room for a cache: weights and activations need ", number_text(least / kGiB),
             " GiB of a device's ", number_text(limit / kGiB),
             over > 0 ? str(", ", number_text(over / kGiB), " GiB too much") : "");
}

}  // namespace

StepTime step_time_of(const StepModel& model, const SchedulerPolicy& policy) {
  const auto drafts = static_cast<double>(policy.draft_tokens);
  return [&model, drafts](const ServingStep& step) {
    StepLoad load;
    load.decode_requests = static_cast<double>(step.decode_requests);
    if (step.decode_requests > 0) {
      load.decode_rows = 1 + drafts;
      load.decode_context = static_cast<double>(step.decode_positions) / load.decode_requests;
      load.draft_tokens = drafts;
    }
    load.prefill_tokens = static_cast<double>(step.prefill_tokens);
    if (step.prefill_tokens > 0)
      load.prefill_attended = static_cast<double>(step.prefill_positions) / load.prefill_tokens;
    load.prefill_ends = static_cast<double>(step.prefill_ends);
    return model.seconds(load);
  };
}

std::optional<SchedulerPolicy> with_cache(const SchedulerPolicy& policy, const StepModel& model) {
  const auto parts = static_cast<double>(model.plan().attention_dp);
  const DeviceMemory empty =
      model.memory(static_cast<double>(policy.max_running), 0, static_cast<double>(policy.max_step_tokens));
  const double token_bytes = model.memory(parts, 1, 1).kv_cache;  // one token in each replica
  const double tokens = std::floor((empty.limit - empty.total()) / token_bytes) * parts;
  if (!(tokens >= parts * static_cast<double>(policy.block_tokens))) return std::nullopt;
  SchedulerPolicy full = policy;
  full.cache_tokens = static_cast<int64_t>(std::min(tokens, 1e15));
  full.cache_parts = model.plan().attention_dp;
  return full;
}

ServingChoice choose_plan(const PlanSearch& search, std::span<const Request> trace,
                          const SchedulerPolicy& policy, const Objective& objective, int64_t replicas,
                          ThreadPool& pool) {
  check<UsageError>(!trace.empty(), "the trace has no requests");
  const std::vector<const StepModel*> plans = fast_plans(search, trace, policy);
  if (plans.empty()) throw UsageError(no_room(search, policy));
  std::optional<ServingChoice> best;
  std::string refusal;
  for (const StepModel* model : plans) {
    ServingChoice choice{model->plan(), *with_cache(policy, *model)};
    try {
      choice.run = simulate_replicas(trace, choice.policy, step_time_of(*model, policy), replicas, pool);
    } catch (const UsageError& error) {  // a request that this plan's cache cannot hold
      refusal = error.what();
      continue;
    }
    choice.summary = summarize(trace, choice.run);
    choice.share_within = share_within(objective, trace, choice.run);
    const auto rank = [](const ServingChoice& c) {
      return std::pair(-c.share_within, c.summary.e2e_ms.mean());
    };
    if (!best || rank(choice) < rank(*best)) best = std::move(choice);
  }
  if (!best) throw UsageError(refusal);
  return std::move(*best);
}

namespace {

/// Fills in the plan that needs fewest machines of this size. Of the plans after the first only those are
/// searched that get by with fewer than the best so far.
void best_plan(FleetTrial& trial, const PlanSearch& search, std::span<const Request> trace,
               const SchedulerPolicy& policy, const Objective& objective, ThreadPool& pool) {
  const std::vector<const StepModel*> plans = fast_plans(search, trace, policy);
  if (plans.empty()) throw UsageError(no_room(search, policy));
  std::string refusal;
  bool any = false;
  for (const StepModel* model : plans) {
    try {
      const SchedulerPolicy full = *with_cache(policy, *model);
      const StepTime step_time = step_time_of(*model, policy);
      if (trial.search.replicas == 1) break;
      if (trial.search.replicas > 1 &&
          !objective.met_by(
              summarize(trace, simulate_replicas(trace, full, step_time, trial.search.replicas - 1, pool))))
        continue;
      ReplicaSearch found = find_replicas(trace, full, step_time, objective, pool);
      if (any && found.replicas == 0) continue;
      trial.plan = model->plan();
      trial.search = std::move(found);
      any = true;
    } catch (const UsageError& error) {  // a request that this plan's cache cannot hold
      refusal = error.what();
    }
  }
  if (!any) throw UsageError(refusal);
}

}  // namespace

std::vector<FleetTrial> search_fleet(const std::function<PlanSearch(int64_t cards)>& machine,
                                     int64_t most_cards, std::span<const Request> trace,
                                     const SchedulerPolicy& policy, const Objective& objective,
                                     ThreadPool& pool) {
  std::vector<FleetTrial> trials;
  for (int64_t cards = 1; cards <= most_cards; cards *= 2) {
    FleetTrial trial{cards};
    try {
      best_plan(trial, machine(cards), trace, policy, objective, pool);
    } catch (const UsageError& error) {
      trial.refusal = error.what();
    }
    trials.push_back(std::move(trial));
  }
  return trials;
}

const FleetTrial* fewest_cards(const std::vector<FleetTrial>& trials) {
  const FleetTrial* best = nullptr;
  for (const FleetTrial& t : trials)
    if (t.search.replicas > 0 && (!best || t.total_cards() < best->total_cards())) best = &t;
  return best;
}

}  // namespace moge::sim
