// The time and memory of one training step on a plan: interleaved 1F1B over p stages of v chunks, tensor
// parallelism with sequence parallelism, experts by all-to-all, ring attention over context-parallel parts,
// gradients over replicas. docs/sim.md has the formulas.
#pragma once
#include <cstdint>

#include "sim/device.h"
#include "sim/routing.h"
#include "spec/model_config.h"
#include "spec/parallel_plan.h"

namespace moge::sim {

/// What the backward pass computes again instead of keeping it.
enum class Recompute : uint8_t { kNone, kAttention, kFull };

struct TrainingLoad {
  int64_t sequence = 4096;                  ///< S
  int64_t micro_batch = 1;                  ///< sequences of a microbatch
  int64_t global_batch_tokens = 4'194'304;  ///< of a step
  Recompute recompute = Recompute::kNone;
  /// False: attention writes its scores to memory and multiplies the masked half, too, as trainers did before
  /// FlashAttention.
  bool fused_attention = true;
  double overlap = 0;       ///< share of the communication inside layers that is hidden behind computation
  double dp_overlap = 0.9;  ///< of the exchange of gradients
  double skew = 0;          ///< of the router, see RoutingModel
};

/// Seconds of a step on the slowest device, part by part; they add up to step_s.
struct TrainingEstimate {
  double matmul_s = 0;     ///< linears, forward and backward
  double attention_s = 0;  ///< its core
  double vector_s = 0;     ///< norms, activations, permutations: bound by memory
  double head_s = 0;       ///< what embedding and lm_head add to the slowest stage
  double recompute_s = 0;
  double straggler_s = 0;  ///< waiting for the device with most expert rows
  double tp_s = 0;         ///< all-gathers and reduce-scatters
  double ep_s = 0;         ///< all-to-alls
  double cp_s = 0;         ///< the ring's transfers that attention doesn't cover
  double pp_s = 0;         ///< sends between stages
  double bubble_s = 0;
  double dp_s = 0;  ///< gradients and weights among replicas
  double optimizer_s = 0;

  double step_s = 0;
  double bubble = 0;          ///< (p - 1) / (v m)
  int64_t micro_batches = 0;  ///< m of each replica
  int64_t padded_layers = 0;  ///< slots without a layer, so that the chunks are equal
  double tokens_per_s = 0;    ///< of all devices
  double mfu = 0;             ///< model FLOPs over peak 16-bit FLOPs

  double weights_bytes = 0;    ///< 16 bit, and fp32 gradients
  double optimizer_bytes = 0;  ///< fp32 master weights and two moments, divided among replicas
  double activation_bytes = 0;
  double memory_limit = 0;
  double memory_bytes() const { return weights_bytes + optimizer_bytes + activation_bytes; }
  bool fits() const { return memory_bytes() <= memory_limit; }
};

/// Throws UsageError: a plan that does not fit the model or the machine, sizes that are not positive, a batch
/// of less than one microbatch a replica.
TrainingEstimate estimate_training(const spec::ModelConfig& config, const Device& device,
                                   const spec::ParallelPlan& plan, const TrainingLoad& load);

}  // namespace moge::sim
