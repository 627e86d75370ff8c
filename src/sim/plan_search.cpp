#include "sim/plan_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace moge::sim {

namespace {

std::vector<int64_t> divisors(int64_t n) {
  std::vector<int64_t> all;
  for (int64_t d = 1; d <= n; ++d)
    if (n % d == 0) all.push_back(d);
  return all;
}

/// The most requests that keep the step within max_step_s, at most `most`; 0 if one is too many.
int64_t most_requests_in_time(const StepModel& model, const ServingGoal& goal, int64_t most) {
  const auto in_time = [&](int64_t requests) {
    return model.seconds(decode_load(static_cast<double>(requests), goal.context, goal.draft_tokens)) <=
           goal.max_step_s;
  };
  if (most < 1 || !in_time(1)) return 0;
  if (in_time(most)) return most;
  int64_t low = 1;
  int64_t high = most;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (in_time(middle) ? low : high) = middle;
  }
  return low;
}

/// The most requests whose cache fits beside the weights: memory grows with requests, in a straight line but
/// for rounding up to whole requests a replica.
int64_t most_requests_in_memory(const StepModel& model, const ServingGoal& goal) {
  const double rows = 1 + goal.draft_tokens;
  const auto fits = [&](int64_t requests) {
    const auto n = static_cast<double>(requests);
    return model.memory(n, goal.context + rows, n * rows).fits();
  };
  if (!fits(1)) return 0;
  int64_t low = 1;
  auto high = static_cast<int64_t>(goal.max_requests);
  if (fits(high)) return high;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace

std::vector<spec::ParallelPlan> serving_plans(const spec::ModelConfig& config, const spec::Hardware& hardware,
                                              int64_t devices, PlanSpace space) {
  const int64_t limit = max_devices(hardware);
  std::vector<spec::ParallelPlan> plans;
  if (devices < 1 || (limit > 0 && devices > limit)) return plans;
  for (const int64_t stages : divisors(devices)) {
    if (space == PlanSpace::kServed && !plans.empty()) break;
    const int64_t R = devices / stages;
    for (const int64_t dp : divisors(R)) {
      const int64_t least_tp = config.is_moe() ? std::min(R, kServedTp) : R;
      if (space == PlanSpace::kServed && R / dp < least_tp) continue;
      const std::vector<int64_t> parts = config.is_moe() ? divisors(R) : std::vector<int64_t>{1};
      for (const int64_t ep : parts) {
        for (const int64_t shared : divisors(R)) {
          for (const bool scatter : {false, true}) {
            // One device has nothing to scatter; without scattering every device has all tokens, so a
            // narrower split of the shared expert would only repeat work.
            if ((scatter && R == 1) || (dp > 1 && !scatter) || (!scatter && shared != R)) continue;
            if (scatter && !config.is_moe() && space == PlanSpace::kServed) continue;
            const spec::ParallelPlan plan{.pipeline = stages,
                                          .attention_dp = dp,
                                          .attention_tp = R / dp,
                                          .expert_ep = ep,
                                          .expert_tp = config.is_moe() ? R / ep : 1,
                                          .shared_tp = shared,
                                          .reduce_scatter = scatter};
            if (plan.problem(config).empty()) plans.push_back(plan);
          }
        }
      }
    }
  }
  return plans;
}

PlanSearch::PlanSearch(const spec::ModelConfig& config, const Device& device, Precision precision,
                       int64_t devices, PlanSpace space, double skew, const OpTable* table) {
  const int64_t limit = max_devices(device.hardware);
  check<UsageError>(devices >= 1, devices, " devices: expected at least 1");
  check<UsageError>(limit == 0 || devices <= limit, device.hardware.name, " joins ", limit,
                    " devices, asked for ", devices);
  for (const spec::ParallelPlan& p : serving_plans(config, device.hardware, devices, space))
    models_.emplace_back(config, device, precision, p, skew, table);
  check<UsageError>(!models_.empty(), "no plan splits this model evenly over ", devices, " devices (",
                    config.num_attention_heads, " query heads, ", config.num_key_value_heads, " KV heads, ",
                    config.num_experts, " experts)");
}

PlanSearch::PlanSearch(const spec::ModelConfig& config, const Device& device, Precision precision,
                       int64_t devices, const spec::ParallelPlan& plan, double skew, const OpTable* table) {
  check<UsageError>(plan.devices() == devices, "parallel plan ", plan.str(), " is for ", plan.devices(),
                    " devices, asked for ", devices);
  models_.emplace_back(config, device, precision, plan, skew, table);
}

PlanChoice PlanSearch::fastest(const StepLoad& load, double cached_requests, double cached_positions) const {
  const PlanChoice none;
  PlanChoice best = none;
  for (const StepModel& model : models_) {
    const PlanChoice choice{model.plan(), model.seconds(load),
                            model.memory(cached_requests, cached_positions, load.tokens())};
    const bool better = best.seconds == 0 || (choice.memory.fits() && !best.memory.fits()) ||
                        (choice.memory.fits() == best.memory.fits() &&
                         (choice.memory.fits() ? choice.seconds < best.seconds
                                               : choice.memory.total() < best.memory.total()));
    if (better) best = choice;
  }
  return best;
}

std::optional<BatchChoice> PlanSearch::best_batch(const ServingGoal& goal) const {
  std::optional<BatchChoice> best;
  const double gained = tokens_per_step(static_cast<int64_t>(goal.draft_tokens), goal.acceptance);
  for (const StepModel& model : models_) {
    if (goal.max_first_token_s > 0 && model.seconds(prefill_load(1, goal.context)) > goal.max_first_token_s)
      continue;
    const int64_t fitting = most_requests_in_memory(model, goal);
    const int64_t requests = most_requests_in_time(model, goal, fitting);
    if (requests == 0) continue;
    const auto n = static_cast<double>(requests);
    const double seconds = model.seconds(decode_load(n, goal.context, goal.draft_tokens));
    const double rate = n * gained / seconds;
    if (best && rate <= best->tokens_per_s) continue;
    const char* limit = requests < fitting                                   ? "tpot"
                        : requests < static_cast<int64_t>(goal.max_requests) ? "memory"
                                                                             : "requests";
    const double rows = 1 + goal.draft_tokens;
    best = BatchChoice{
        {model.plan(), seconds, model.memory(n, goal.context + rows, n * rows)}, requests, rate, limit};
  }
  return best;
}

Infeasible PlanSearch::why_infeasible(const ServingGoal& goal) const {
  const double rows = 1 + goal.draft_tokens;
  Infeasible why;
  why.least_first_token_s = why.least_step_s = why.least_memory_bytes =
      std::numeric_limits<double>::infinity();
  why.memory = true;
  for (const StepModel& model : models_) {
    const DeviceMemory memory = model.memory(1, goal.context + rows, rows);
    why.memory_limit_bytes = memory.limit;
    why.least_memory_bytes = std::min(why.least_memory_bytes, memory.total());
    if (!memory.fits()) continue;
    why.memory = false;
    why.least_first_token_s = std::min(why.least_first_token_s, model.seconds(prefill_load(1, goal.context)));
    why.least_step_s =
        std::min(why.least_step_s, model.seconds(decode_load(1, goal.context, goal.draft_tokens)));
  }
  return why;
}

const StepModel& PlanSearch::model(const spec::ParallelPlan& plan) const {
  const auto it = std::ranges::find_if(models_, [&](const StepModel& m) { return m.plan() == plan; });
  dcheck(it != models_.end(), "a plan that was not searched: ", plan.str());
  return *it;
}

}  // namespace moge::sim
