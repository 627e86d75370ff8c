#include "train/train_step.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "core/memory_text.h"

namespace moge::train {

namespace {

void zero(const Tensor& t) {
  if (t && t.numel() > 0) std::memset(t.data, 0, t.bytes());
}

double sum(std::span<const float> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

/// For what `allocate` takes; a counting one without memory.
Arena TrainStep::planned_arena(const auto& allocate, const std::string& purpose) const {
  Arena plan;
  if (!has_memory()) return plan;
  allocate(plan);
  return {plan.used_bytes(), purpose};
}

TrainStep::TrainStep(ExecContext ctx, model::Model model, const AdamWConfig& adamw, const LossConfig& loss,
                     int64_t max_tokens, int64_t max_sequences)
    : ctx_(ctx),
      loss_(loss),
      max_tokens_(max_tokens),
      max_sequences_(max_sequences),
      model_(std::move(model)),
      grad_memory_(planned_arena([&](Arena& a) { model::allocate_weights(a, model_.config, DType::kF32); },
                                 "gradients")),
      grads_(model::allocate_weights(grad_memory_, model_.config, DType::kF32)),
      optimizer_(model_.weights, adamw),
      activation_memory_(planned_arena([&](Arena& a) { allocate(a); }, "activations")),
      buf_(allocate(activation_memory_)) {
  plan_ = {.weights = model_.memory.used_bytes(),
           .gradients = grad_memory_.used_bytes(),
           .optimizer = optimizer_.memory_bytes(),
           .activations = activation_memory_.used_bytes(),
           .workspace = plan_workspace()};
  if (!has_memory()) return;
  workspace_ = Workspace(plan_.workspace);
  ctx_.workspace = &workspace_;
}

TrainStep::MemoryPlan TrainStep::plan(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                                      const LossConfig& loss, int64_t max_tokens, int64_t max_sequences) {
  model::Model model{config, {}, {}};
  model.weights = model::allocate_weights(model.memory, config, weights);
  return TrainStep(ctx, std::move(model), {}, loss, max_tokens, max_sequences).memory_plan();
}

std::array<MemoryPart, 5> TrainStep::MemoryPlan::parts() const {
  return {{{"weights", weights},
           {"gradients", gradients},
           {"optimizer", optimizer},
           {"activations", activations},
           {"workspace", workspace}}};
}

std::string TrainStep::MemoryPlan::str() const {
  return moge::str(memory_text(parts()), ", in all ", memory_text(total()));
}

TrainStep::Buffers TrainStep::allocate(Arena& arena) const {
  const spec::ModelConfig& c = model_.config;
  Buffers b{.acts = model::allocate_activations(arena, c, max_tokens_, model::Keep::kAllLayers),
            .act_grads = model::allocate_activation_grads(arena, c, max_tokens_),
            .loss = arena.alloc(DType::kF32, {max_tokens_}),
            .segments = arena.alloc(DType::kI32, {2}),
            .segment_tokens = arena.alloc(DType::kI32, {max_sequences_}),
            .step_counts = {},
            .sequence_counts = {}};
  for (int64_t l = 0; c.is_moe() && l < c.num_hidden_layers; ++l) {
    b.step_counts.push_back(arena.alloc(DType::kI32, {1, c.num_experts}));
    if (loss_.balance_level == BalanceLevel::kSequence)
      b.sequence_counts.push_back(arena.alloc(DType::kI32, {max_sequences_, c.num_experts}));
  }
  return b;
}

int64_t TrainStep::plan_workspace() {
  ExecContext real = ctx_;
  Workspace counter;
  ctx_.workspace = &counter;
  ctx_.planning = true;
  // One long sequence or many short ones: ops may want more for either.
  for (const int64_t B : {int64_t{1}, max_sequences_}) {
    const Tensor tokens(nullptr, DType::kI32, {max_tokens_});
    const MicroBatch mb{
        {.tokens = tokens, .positions = tokens, .cu_seqlens = {nullptr, DType::kI32, {B + 1}}}, tokens};
    forward(mb);
    model::loss_fwd(ctx_, model_.weights, buf_.acts, mb.targets, buf_.loss);
    model::count_experts(ctx_, buf_.acts, buf_.segments, buf_.step_counts);
    model::loss_and_bwd(ctx_, model_.config, model_.weights, grads_, mb.batch, mb.targets, 1.0F,
                        aux_loss(mb, max_tokens_, B), buf_.acts, buf_.act_grads, buf_.loss);
  }
  optimizer_.grad_norm(ctx_, grads_);
  optimizer_.update(ctx_, grads_, 0, 0);
  optimizer_.set_num_updates(0);
  ctx_ = real;
  return counter.planned_bytes();
}

model::Activations TrainStep::activations(int64_t num_tokens) const {
  return num_tokens == max_tokens_ ? buf_.acts : model::first_tokens(buf_.acts, model_.config, num_tokens);
}

void TrainStep::forward(const MicroBatch& mb) {
  check<ShapeError>(mb.batch.num_tokens() <= max_tokens_ && mb.batch.num_sequences() <= max_sequences_,
                    "micro-batch of ", mb.batch.num_tokens(), " tokens in ", mb.batch.num_sequences(),
                    " sequences: planned for ", max_tokens_, " in ", max_sequences_);
  model::transformer_fwd(ctx_, model_.config, model_.weights, mb.batch, nullptr,
                         activations(mb.batch.num_tokens()));
}

model::AuxLoss TrainStep::aux_loss(const MicroBatch& mb, int64_t step_tokens, int64_t step_sequences) {
  model::AuxLoss aux{.balance_coef = loss_.balance_coef, .z_coef = loss_.z_coef, .step_tokens = step_tokens};
  if (loss_.balance_level == BalanceLevel::kBatch) {
    aux.segments = buf_.segments;
    aux.segment_tokens = buf_.segment_tokens.slice(0, 0, 1);
    aux.counts = buf_.step_counts;
    if (!ctx_.planning) *aux.segment_tokens.ptr<int32_t>() = static_cast<int32_t>(step_tokens);
    return aux;
  }
  const int64_t B = mb.batch.num_sequences();
  aux.step_segments = step_sequences;
  aux.segments = mb.batch.cu_seqlens;
  aux.segment_tokens = buf_.segment_tokens.slice(0, 0, B);
  for (const Tensor& counts : buf_.sequence_counts) aux.counts.push_back(counts.slice(0, 0, B));
  if (ctx_.planning) return aux;
  const auto* cu = mb.batch.cu_seqlens.ptr<int32_t>();
  for (int64_t b = 0; b < B; ++b) aux.segment_tokens.ptr<int32_t>()[b] = cu[b + 1] - cu[b];
  for (const Tensor& counts : aux.counts) zero(counts);
  model::count_experts(ctx_, activations(mb.batch.num_tokens()), aux.segments, aux.counts);
  return aux;
}

StepResult TrainStep::compute_gradients(std::span<const MicroBatch> micro_batches) {
  int64_t step_tokens = 0, step_sequences = 0, step_targets = 0;
  for (const MicroBatch& mb : micro_batches) {
    step_tokens += mb.batch.num_tokens();
    step_sequences += mb.batch.num_sequences();
    for (const int32_t target : elements<int32_t>(mb.targets)) step_targets += target >= 0;
  }
  check<ShapeError>(step_targets > 0, "a step needs at least one target token");
  for (const model::Parameter& p : model::parameters(grads_)) zero(p.tensor);
  for (const Tensor& counts : buf_.step_counts) zero(counts);
  const auto forward_and_count = [&](const MicroBatch& mb, bool count) {
    forward(mb);
    buf_.segments.ptr<int32_t>()[0] = 0;
    buf_.segments.ptr<int32_t>()[1] = static_cast<int32_t>(mb.batch.num_tokens());
    if (count)
      model::count_experts(ctx_, activations(mb.batch.num_tokens()), buf_.segments, buf_.step_counts);
  };
  const bool count_first = micro_batches.size() > 1 && loss_.balance_coef != 0 &&
                           loss_.balance_level == BalanceLevel::kBatch && model_.config.is_moe();
  for (const MicroBatch& mb : micro_batches)
    if (count_first) forward_and_count(mb, true);

  StepResult result;
  for (const MicroBatch& mb : micro_batches) {
    const int64_t T = mb.batch.num_tokens();
    forward_and_count(mb, !count_first);
    const Tensor loss = buf_.loss.slice(0, 0, T);
    model::loss_and_bwd(ctx_, model_.config, model_.weights, grads_, mb.batch, mb.targets,
                        1.0F / static_cast<float>(step_targets), aux_loss(mb, step_tokens, step_sequences),
                        activations(T), model::first_tokens(buf_.act_grads, model_.config, T), loss);
    result.loss += sum(elements<float>(loss)) / static_cast<double>(step_targets);
    const auto L = static_cast<double>(model_.config.num_hidden_layers);
    if (loss_.balance_coef != 0 && model_.config.is_moe())
      result.balance += sum(elements<float>(buf_.act_grads.balance_loss)) / loss_.balance_coef / L;
    if (loss_.z_coef != 0 && model_.config.is_moe())
      result.z_loss += sum(elements<float>(buf_.act_grads.z_loss)) / loss_.z_coef / L;
  }
  result.grad_norm = optimizer_.grad_norm(ctx_, grads_);
  return result;
}

void TrainStep::update(StepResult& result, float lr) {
  result.updated = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  if (result.updated) optimizer_.update(ctx_, grads_, result.grad_norm, lr);
}

std::span<const float> TrainStep::evaluate(const MicroBatch& mb) {
  const int64_t T = mb.batch.num_tokens();
  forward(mb);
  const Tensor loss = buf_.loss.slice(0, 0, T);
  model::loss_fwd(ctx_, model_.weights, activations(T), mb.targets, loss);
  return elements<float>(loss);
}

std::span<const int32_t> TrainStep::expert_counts(int64_t layer_idx) const {
  return elements<int32_t>(buf_.step_counts[layer_idx]);
}

}  // namespace moge::train
