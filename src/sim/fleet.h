// Machines that serve a trace: what a plan means for the scheduler, which plan serves the trace best, and how
// many cards it takes to keep an objective.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "sim/plan_search.h"
#include "sim/serving.h"
#include "sim/serving_summary.h"

namespace moge::sim {

/// Seconds of the scheduler's steps, by the step model (which must outlive this).
StepTime step_time_of(const StepModel& model, const SchedulerPolicy& policy);

/// `policy` with the cache that the plan leaves room for beside weights and the largest step. Nothing if that
/// is not one block a replica.
std::optional<SchedulerPolicy> with_cache(const SchedulerPolicy& policy, const StepModel& model);

struct ServingChoice {
  spec::ParallelPlan plan;
  SchedulerPolicy policy;
  ServingRun run;
  ServingSummary summary;
  double share_within = 1;  ///< of the requests, within the objective
};

/// The plan under which most requests are within the objective, and of equal ones the quickest in the mean
/// (end to end). Those that are fastest at some batch size are tried on the whole trace. Throws UsageError
/// where none works: the cache has no room, or a request can never run.
ServingChoice choose_plan(const PlanSearch& search, std::span<const Request> trace,
                          const SchedulerPolicy& policy, const Objective& objective, int64_t replicas,
                          ThreadPool& pool);

/// One size of machine in a search for the fewest cards.
struct FleetTrial {
  int64_t cards = 0;                                               ///< of one machine
  std::string refusal;                                             ///< why this size cannot serve at all; or
  spec::ParallelPlan plan;                                         ///< of each machine,
  ReplicaSearch search;                                            ///< and how many it takes
  int64_t total_cards() const { return cards * search.replicas; }  ///< 0: the objective is out of reach
};
/// Tries machines of 1, 2, 4, ... `most_cards` cards, each with the plans of choose_plan(). `machine` gives
/// the plans of a number of cards; what it throws as UsageError is the size's refusal.
std::vector<FleetTrial> search_fleet(const std::function<PlanSearch(int64_t cards)>& machine,
                                     int64_t most_cards, std::span<const Request> trace,
                                     const SchedulerPolicy& policy, const Objective& objective,
                                     ThreadPool& pool);
/// The trial of fewest cards that reaches the objective; null if none does.
const FleetTrial* fewest_cards(const std::vector<FleetTrial>& trials);

}  // namespace moge::sim
