#include "train/optimizer.h"

#include <cmath>

#include "ops/adamw.h"

namespace moge::train {

namespace {

Tensor flat(const Tensor& t) {
  return t.view({t.numel()});
}

}  // namespace

std::vector<AdamWOptimizer::Slot> AdamWOptimizer::slots(Arena& arena, const model::Weights& weights) const {
  std::vector<Slot> all;
  for (const model::Parameter& p : model::parameters(weights)) {
    const Shape shape = {p.tensor.numel()};
    Slot slot{.param = p, .master = flat(p.tensor), .m = arena.alloc(DType::kF32, shape), .v = {}};
    slot.v = arena.alloc(DType::kF32, shape);
    if (p.tensor.dtype != DType::kF32) slot.master = arena.alloc(DType::kF32, shape);
    all.push_back(slot);
  }
  return all;
}

AdamWOptimizer::AdamWOptimizer(const model::Weights& weights, const AdamWConfig& config)
    : config_(config), sum_(DType::kF32, {1}) {
  slots_ = slots(memory_, weights);
  if (weights.embed_tokens.data == nullptr) return;
  memory_ = Arena(memory_.used_bytes(), "optimizer state");
  slots_ = slots(memory_, weights);
  for (const Slot& s : slots_) {
    if (s.param.tensor.dtype == DType::kF32) continue;
    const BF16* w = s.param.tensor.ptr<BF16>();
    auto* master = s.master.ptr<float>();
    for (int64_t i = 0; i < s.master.numel(); ++i) master[i] = to_f32(w[i]);
  }
}

double AdamWOptimizer::grad_norm(ExecContext& ctx, const model::Weights& grads) {
  double sum = 0;
  for (const model::Parameter& p : model::parameters(grads)) {
    ops::sum_squares(ctx, {.sum = sum_, .x = flat(p.tensor)});
    sum += double{*sum_->ptr<float>()};
  }
  return std::sqrt(sum);
}

void AdamWOptimizer::update(ExecContext& ctx, const model::Weights& grads, double norm, float lr) {
  ++num_updates_;
  const bool clip = config_.clip_grad_norm > 0 && norm > config_.clip_grad_norm;
  const float scale = clip ? static_cast<float>(config_.clip_grad_norm / norm) : 1.0F;
  const std::vector<model::Parameter> grad = model::parameters(grads);
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& s = slots_[i];
    const bool rounded = s.param.tensor.dtype != DType::kF32;
    ops::adamw(ctx, {.param = s.master,
                     .param_bf16 = rounded ? flat(s.param.tensor) : Tensor(),
                     .m = s.m,
                     .v = s.v,
                     .grad = flat(grad[i].tensor),
                     .lr = lr,
                     .beta1 = config_.beta1,
                     .beta2 = config_.beta2,
                     .eps = config_.eps,
                     .weight_decay = s.param.decay ? config_.weight_decay : 0.0F,
                     .grad_scale = scale,
                     .step = num_updates_});
  }
}

std::vector<AdamWOptimizer::NamedTensor> AdamWOptimizer::state() const {
  std::vector<NamedTensor> all;
  for (const Slot& s : slots_) {
    all.push_back({s.param.name + ".m", s.m});
    all.push_back({s.param.name + ".v", s.v});
    if (s.param.tensor.dtype != DType::kF32) all.push_back({s.param.name + ".master", s.master});
  }
  return all;
}

}  // namespace moge::train
