// One optimizer step over one or more micro-batches: all of a trainer's arithmetic, none of its files. Owns
// the weights, gradients, optimizer state, activations and workspace, planned once at construction.
#pragma once
#include <array>
#include <span>
#include <vector>

#include "core/memory_text.h"
#include "model/loader.h"
#include "model/transformer.h"
#include "train/optimizer.h"

namespace moge::train {

/// Over which tokens eq. 8's counts and means are taken.
enum class BalanceLevel {
  kBatch,     ///< all tokens of the optimizer step, whatever the micro-batches
  kSequence,  ///< each sequence by itself, averaged
};

struct LossConfig {
  float balance_coef = 0;
  float z_coef = 0;
  BalanceLevel balance_level = BalanceLevel::kBatch;
};

/// Rows of one forward and backward pass.
struct MicroBatch {
  model::Batch batch;
  Tensor targets;  // [T] i32, -1: no loss
};

struct StepResult {
  double loss = 0;       ///< mean cross-entropy over the targets, nats
  double balance = 0;    ///< eq. 8 without alpha, mean over layers: 1 = balanced
  double z_loss = 0;     ///< mean squared log-sum-exp, mean over layers
  double grad_norm = 0;  ///< before clipping
  bool updated =
      false;  ///< false: loss or gradients were not finite, or the guard refused; weights unchanged
};

class TrainStep {
 public:
  /// Bytes by purpose.
  struct MemoryPlan {
    int64_t weights, gradients, optimizer, activations, workspace;
    int64_t total() const { return weights + gradients + optimizer + activations + workspace; }
    std::array<MemoryPart, 5> parts() const;
    std::string str() const;  ///< "weights 0.94 GiB, gradients ..., in all ..."
  };
  /// What a TrainStep of these arguments will allocate, and its model, without allocating it.
  static MemoryPlan plan(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                         const LossConfig& loss, int64_t max_tokens, int64_t max_sequences);

  /// The largest micro-batch must be known: memory is planned for it. `model` is taken over.
  TrainStep(ExecContext ctx, model::Model model, const AdamWConfig& adamw, const LossConfig& loss,
            int64_t max_tokens, int64_t max_sequences);
  TrainStep(const TrainStep&) = delete;  // its context points to its workspace
  TrainStep& operator=(const TrainStep&) = delete;

  /// Gradients of the mean loss over all micro-batches, into grads(). With several micro-batches and a
  /// balance loss at batch level a forward-only pass counts the selections first: eq. 8 needs the whole
  /// step's counts.
  StepResult compute_gradients(std::span<const MicroBatch> micro_batches);
  /// Clips and updates.
  void update(StepResult& result, float lr);
  /// Per-token losses of one batch, [T]; no gradients. Valid until the next call.
  std::span<const float> evaluate(const MicroBatch& micro_batch);

  const model::Model& model() const { return model_; }
  const model::Weights& grads() const { return grads_; }
  AdamWOptimizer& optimizer() { return optimizer_; }
  ExecContext& context() { return ctx_; }
  /// Per layer [E]: tokens that chose each expert in the last step.
  std::span<const int32_t> expert_counts(int64_t layer_idx) const;
  const MemoryPlan& memory_plan() const { return plan_; }
  model::Activations activations(int64_t num_tokens) const;

 private:
  struct Buffers {  // one arena's worth of tensors
    model::Activations acts;
    model::ActivationGrads act_grads;
    Tensor loss;                          // [T]
    Tensor segments;                      // [2] i32: {0, T}
    Tensor segment_tokens;                // [max_sequences] i32
    std::vector<Tensor> step_counts;      // per layer [1, E] i32, the whole step
    std::vector<Tensor> sequence_counts;  // per layer [max_sequences, E] i32
  };
  Buffers allocate(Arena& arena) const;
  bool has_memory() const { return !model_.memory.counting(); }  // false: only its plan is asked for
  Arena planned_arena(const auto& allocate, const std::string& purpose) const;
  /// Workspace of the largest need, in bytes.
  int64_t plan_workspace();
  model::AuxLoss aux_loss(const MicroBatch& micro_batch, int64_t step_tokens, int64_t step_sequences);
  void forward(const MicroBatch& micro_batch);

  ExecContext ctx_;
  LossConfig loss_;
  int64_t max_tokens_, max_sequences_;
  model::Model model_;
  Arena grad_memory_;
  model::Weights grads_;
  AdamWOptimizer optimizer_;
  Arena activation_memory_;
  Buffers buf_;
  Workspace workspace_;
  MemoryPlan plan_{};
};

}  // namespace moge::train
