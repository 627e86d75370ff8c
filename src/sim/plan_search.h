// Which plan serves a load best on a number of devices: all plans that the model and the machine allow, each
// priced by its StepModel.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "sim/step.h"

namespace moge::sim {

enum class PlanSpace : uint8_t {
  /// As models are served: dense ones tensor parallel, with all-reduces; attention of MoE models over at
  /// least
  /// kServedTp devices before there are copies of it (the report's H2P has DP2 x TP4 on eight, and its dense
  /// rows are tensor parallel on two and four cards), stages of a pipeline only where nothing else is even.
  /// The experts'
  /// split is free.
  kServed,
  kAll,  ///< every even split
};
inline constexpr int64_t kServedTp = 4;

/// The plans that serve a model on `devices` devices, the simplest first. Empty if no split of this model
/// over these devices is even.
std::vector<spec::ParallelPlan> serving_plans(const spec::ModelConfig& config, const spec::Hardware& hardware,
                                              int64_t devices, PlanSpace space);

struct PlanChoice {
  spec::ParallelPlan plan;
  double seconds = 0;  ///< of a step
  DeviceMemory memory;
};

/// What a batch has to keep.
struct ServingGoal {
  double context = 0;         ///< cached positions of each request
  double draft_tokens = 0;    ///< K
  double acceptance = 0;      ///< of a draft token
  double max_step_s = 0;      ///< longest time between a request's tokens (TPOT)
  double max_requests = 1e6;  ///< of the batch
  /// Longest prefill of one prompt of `context` tokens on the same plan (TTFT); 0: any.
  double max_first_token_s = 0;
};

struct BatchChoice {
  PlanChoice choice;
  int64_t requests = 0;
  double tokens_per_s = 0;  ///< of all devices
  /// What keeps the batch from growing: "tpot", "memory" or "requests".
  const char* limit = "";
};

/// Why no batch is possible: the least that one request needs, over all plans.
struct Infeasible {
  double least_first_token_s = 0;  ///< of the plans that fit
  double least_step_s = 0;         ///< of the fastest plan that fits
  double least_memory_bytes = 0;   ///< of one device
  double memory_limit_bytes = 0;
  bool memory = false;  ///< true: no plan fits the memory; false: those that fit are too slow
};

class PlanSearch {
 public:
  /// Throws UsageError if no plan is possible.
  PlanSearch(const spec::ModelConfig& config, const Device& device, Precision precision, int64_t devices,
             PlanSpace space = PlanSpace::kServed, double skew = 0, const OpTable* table = nullptr);
  /// Of one plan only. Throws UsageError if it does not fit.
  PlanSearch(const spec::ModelConfig& config, const Device& device, Precision precision, int64_t devices,
             const spec::ParallelPlan& plan, double skew = 0, const OpTable* table = nullptr);

  /// The fastest of the plans that fit with `cached_requests` requests of `cached_positions`; if none fits,
  /// the one that needs least memory (PlanChoice::memory.fits() is false).
  PlanChoice fastest(const StepLoad& load, double cached_requests, double cached_positions) const;
  /// The batch and plan of most tokens a second within the goal; nothing if no plan can serve one request.
  std::optional<BatchChoice> best_batch(const ServingGoal& goal) const;
  Infeasible why_infeasible(const ServingGoal& goal) const;

  const std::vector<StepModel>& models() const { return models_; }
  const StepModel& model(const spec::ParallelPlan& plan) const;

 private:
  std::vector<StepModel> models_;
};

}  // namespace moge::sim
