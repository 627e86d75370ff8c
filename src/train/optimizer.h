// AdamW over a model's parameters, with fp32 masters of what the model computes with in bf16.
#pragma once
#include <vector>

#include "core/exec_context.h"
#include "model/weights.h"

namespace moge::train {

struct AdamWConfig {
  float beta1 = 0.9F;
  float beta2 = 0.95F;
  float eps = 1e-8F;
  float weight_decay = 0.1F;    ///< of matrices; norms, biases and router_scale do not decay
  float clip_grad_norm = 1.0F;  ///< of the global norm; 0: no clipping
};

/// The state is named tensors, so that a checkpoint can hold them: per parameter NAME.m, NAME.v and, for bf16
/// parameters, NAME.master.
class AdamWOptimizer {
 public:
  /// `weights` must outlive this. Masters start as copies of the weights. Over weights without memory (of a
  /// counting arena) the state has none either: it is planned, memory_bytes() says how large.
  AdamWOptimizer(const model::Weights& weights, const AdamWConfig& config);

  /// Global norm of the gradients, accumulated in double.
  double grad_norm(ExecContext& ctx, const model::Weights& grads);
  /// One update; `norm` (of grad_norm) decides the clipping. Steps count from 1.
  void update(ExecContext& ctx, const model::Weights& grads, double norm, float lr);

  int64_t num_updates() const { return num_updates_; }
  void set_num_updates(int64_t n) { num_updates_ = n; }
  int64_t memory_bytes() const { return memory_.used_bytes(); }
  struct NamedTensor {
    std::string name;
    Tensor tensor;
  };
  std::vector<NamedTensor> state() const;

 private:
  struct Slot {
    model::Parameter param;
    Tensor master;  // f32; the parameter itself when it is f32
    Tensor m, v;
  };
  std::vector<Slot> slots(Arena& arena, const model::Weights& weights) const;
  AdamWConfig config_;
  Arena memory_;
  std::vector<Slot> slots_;
  OwnedTensor sum_;
  int64_t num_updates_ = 0;
};

}  // namespace moge::train
