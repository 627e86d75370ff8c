#include "sim/training.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "sim/network.h"
#include "sim/op_time.h"
#include "spec/cost.h"

namespace moge::sim {

namespace {

constexpr double kBytes16 = 2;
constexpr double kBytes32 = 4;
constexpr double kMomentsAndMaster = 3 * kBytes32;
/// The backward pass computes two matmuls for each of the forward's; attention's recomputes scores, too.
constexpr double kBackwardMatmuls = 2;
constexpr double kBackwardAttention = 2.5;
/// Sequence parallelism gathers and scatters around attention and around the MLP; backwards the inputs are
/// gathered once more for the weights' gradients.
constexpr double kForwardGathers = 4;
constexpr double kBackwardGathers = 6;
constexpr double kKernelsForward = 21;
/// Bytes that unfused attention moves for each 16-bit score: written by q k^T, read and written by the
/// softmax and by dropout (and its mask), read by p v; backwards their gradients, too.
constexpr double kScoreBytesForward = 13;
constexpr double kScoreBytesBackward = 17;

/// One layer's forward pass of one microbatch on one device.
struct LayerForward {
  double matmul_s = 0;
  double expert_s = 0;  ///< of matmul_s
  double attention_s = 0;
  double attention_backward_s = 0;
  double vector_s = 0;
  double gather_s = 0;    ///< one all-gather or reduce-scatter over TP
  double exchange_s = 0;  ///< one all-to-all over EP
  double ring_s = 0;      ///< all of the ring's transfers
};

void validate(const TrainingLoad& load, const spec::ParallelPlan& plan, const spec::ModelConfig& config,
              const Device& device) {
  check<UsageError>(load.sequence >= 1 && load.micro_batch >= 1 && load.global_batch_tokens >= 1, "sequence ",
                    load.sequence, ", micro batch ", load.micro_batch, ", global batch ",
                    load.global_batch_tokens, " tokens: expected positive numbers");
  check<UsageError>(load.overlap >= 0 && load.overlap <= 1 && load.dp_overlap >= 0 && load.dp_overlap <= 1,
                    "overlap ", load.overlap, " and ", load.dp_overlap, ": expected from 0 to 1");
  plan.validate(config);
  check<UsageError>(load.sequence % plan.context_parallel == 0, "parallel plan: sequence ", load.sequence,
                    " is not divisible by context_parallel ", plan.context_parallel);
  check<UsageError>(plan.pipeline * plan.pipeline_chunks <= config.num_hidden_layers,
                    "parallel plan: ", plan.pipeline, " stages of ", plan.pipeline_chunks, " chunks for ",
                    config.num_hidden_layers, " layers");
  const int64_t limit = max_devices(device.hardware);
  check<UsageError>(limit == 0 || plan.devices() <= limit, device.hardware.name, " joins ", limit,
                    " devices, the plan needs ", plan.devices());
}

/// Parameters of one device: of a layer's attention, router and shared expert or MLP, and of its experts.
struct LayerShare {
  double dense = 0;
  double experts = 0;
};

LayerShare layer_share(const spec::ModelConfig& c, const spec::ParallelPlan& plan) {
  const spec::LayerLinears w = spec::layer_linears(c);
  const auto weights = [](const spec::LinearShape& l) { return static_cast<double>(l.weights()); };
  const auto tp = static_cast<double>(plan.attention_tp);
  const auto shared = static_cast<double>(plan.shared_tp);
  LayerShare share;
  share.dense =
      (weights(w.qkv) + weights(w.o)) / tp + weights(w.router) +
      (weights(w.mlp_gate_up) + weights(w.mlp_down) + weights(w.shared_gate_up) + weights(w.shared_down)) /
          shared;
  share.experts = static_cast<double>(c.num_experts) * (weights(w.expert_gate_up) + weights(w.expert_down)) /
                  static_cast<double>(plan.expert_ep * plan.expert_tp);
  return share;
}

LayerForward layer_forward(const spec::ModelConfig& c, const Device& device, const spec::ParallelPlan& plan,
                           const TrainingLoad& load) {
  const spec::LayerLinears w = spec::layer_linears(c);
  const auto tp = static_cast<double>(plan.attention_tp);
  const auto cp = static_cast<double>(plan.context_parallel);
  const auto R = static_cast<double>(plan.devices_per_stage());
  const auto D = static_cast<double>(c.hidden_size);
  const auto S = static_cast<double>(load.sequence);
  const double t = static_cast<double>(load.micro_batch) * S / cp;  // tokens of a tensor-parallel group
  const double all = t * R / tp;                                    // of the stage
  const double link = device.calibration.link_efficiency.value;
  const auto shared_split = static_cast<double>(plan.shared_tp);
  // Each device of a shared_tp group runs its part for all the group's tokens.
  const double shared_tokens = t * shared_split / tp;
  LayerForward f;
  f.expert_s = all * static_cast<double>(c.num_experts_per_tok) *
               (w.expert_gate_up.flops(1) + w.expert_down.flops(1)) / R / device.dense_flops;
  f.matmul_s = ((w.qkv.flops(t) + w.o.flops(t)) / tp + w.router.flops(t) / tp +
                (w.mlp_gate_up.flops(shared_tokens) + w.mlp_down.flops(shared_tokens) +
                 w.shared_gate_up.flops(shared_tokens) + w.shared_down.flops(shared_tokens)) /
                    shared_split) /
                   device.dense_flops +
               f.expert_s + kKernelsForward * device.op_s;
  const double flops_per_position = static_cast<double>(spec::attention_flops_per_position(c));
  f.attention_s = t * (S + 1) / 2 * flops_per_position / tp / device.attention_flops;
  f.attention_backward_s = kBackwardAttention * f.attention_s;
  if (!load.fused_attention) {
    const double scores = t * S * static_cast<double>(c.num_attention_heads) / tp;
    const double matmuls_s = t * S * flops_per_position / tp / device.attention_flops;
    f.attention_s = matmuls_s + scores * kScoreBytesForward / device.memory_bandwidth;
    f.attention_backward_s =
        kBackwardMatmuls * matmuls_s + scores * kScoreBytesBackward / device.memory_bandwidth;
  }
  // Each kept element is written once and read about twice.
  f.vector_s = 3 * t * static_cast<double>(spec::activation_elements_per_token(c)) * kBytes16 / tp /
               device.memory_bandwidth;
  const auto collective = [&](double bytes, double rate) {
    return rate <= 0 ? 0.0 : std::max(device.collective_s, bytes * rate);
  };
  f.gather_s =
      collective(t * D * kBytes16, collective_rates(device.hardware, plan.attention_tp, link).gather);
  if (c.is_moe() && plan.expert_ep > 1) {
    const auto ep = static_cast<double>(plan.expert_ep);
    const double parts = c.num_expert_groups % plan.expert_ep == 0
                             ? ep
                             : ep * (1 - std::pow(1 - 1 / ep, static_cast<double>(c.num_experts_per_tok)));
    // One exchange group has a device of each part; it moves its share of the stage's tokens.
    const double bytes = all / static_cast<double>(plan.expert_tp) * parts * D * kBytes16;
    f.exchange_s =
        collective(bytes, collective_rates(device.hardware, plan.expert_ep, link, plan.expert_tp).all_to_all);
  }
  if (plan.context_parallel > 1) {
    const double block = t * static_cast<double>(spec::kv_elements_per_position(c)) * kBytes16 / tp;
    f.ring_s =
        (cp - 1) * std::max(device.collective_s, block * send_rate(device.hardware, plan.attention_tp, link));
  }
  return f;
}

/// One layer, both passes, of one microbatch.
struct LayerPasses {
  double matmul_s = 0, attention_s = 0, vector_s = 0, straggler_s = 0, recompute_s = 0;
  double tp_s = 0, ep_s = 0, ring_s = 0;  ///< what is not hidden behind computation
  double total_s() const {
    return matmul_s + attention_s + vector_s + straggler_s + recompute_s + tp_s + ep_s + ring_s;
  }
};

LayerPasses both_passes(const spec::ModelConfig& c, const Device& device, const spec::ParallelPlan& plan,
                        const TrainingLoad& load) {
  const LayerForward f = layer_forward(c, device, plan, load);
  const double tokens =  // of the stage
      static_cast<double>(load.micro_batch * load.sequence) / static_cast<double>(plan.context_parallel) *
      static_cast<double>(plan.devices_per_stage()) / static_cast<double>(plan.attention_tp);
  const double waiting = (RoutingModel(c, plan.expert_ep, load.skew).straggler(tokens) - 1) * f.expert_s;
  const double exposed = 1 - load.overlap;
  const double again = load.recompute == Recompute::kFull ? 1 : 0;
  LayerPasses p;
  p.matmul_s = (1 + kBackwardMatmuls) * f.matmul_s;
  p.attention_s = f.attention_s + f.attention_backward_s;
  p.vector_s = (1 + kBackwardMatmuls) * f.vector_s;
  p.straggler_s = (1 + kBackwardMatmuls) * waiting;
  if (load.recompute == Recompute::kFull) p.recompute_s = f.matmul_s + f.attention_s + f.vector_s;
  if (load.recompute == Recompute::kAttention) p.recompute_s = f.attention_s;
  p.tp_s = exposed * (kForwardGathers * (1 + again) + kBackwardGathers) * f.gather_s;
  p.ep_s = exposed * (2 * (1 + again) + 2) * f.exchange_s;
  p.ring_s = std::max(0.0, f.ring_s - f.attention_s) + std::max(0.0, 2 * f.ring_s - f.attention_backward_s);
  return p;
}

/// Equal chunks: empty slots fill up the last stage, beside the lm_head.
struct StageLayers {
  StageLayers(const spec::ModelConfig& c, const spec::ParallelPlan& plan) {
    const auto p = static_cast<double>(plan.pipeline), v = static_cast<double>(plan.pipeline_chunks);
    const auto L = static_cast<double>(c.num_hidden_layers);
    const double slots = ceil_div(L, p * v) * p * v;
    padded = slots - L;
    full = slots / p;
    last = std::max(0.0, full - padded);
  }
  double full, last, padded;
};

/// The parts of a step that are computed, of the slowest stage: a full one, or the last with its lm_head.
/// Returns their sum.
double add_stage(TrainingEstimate& e, const spec::ModelConfig& c, const Device& device,
                 const spec::ParallelPlan& plan, const TrainingLoad& load) {
  const LayerPasses layer = both_passes(c, device, plan, load);
  const StageLayers layers(c, plan);
  const auto tp = static_cast<double>(plan.attention_tp);
  const auto m = static_cast<double>(e.micro_batches);
  const double t =
      static_cast<double>(load.micro_batch * load.sequence) / static_cast<double>(plan.context_parallel);
  const double head_s = (1 + kBackwardMatmuls) * spec::lm_head_linear(c).flops(t) / tp / device.dense_flops;
  const bool last_is_slowest = std::max(layers.full, layers.last + head_s / layer.total_s()) > layers.full;
  const double counted = last_is_slowest ? layers.last : layers.full;
  e.matmul_s = m * counted * layer.matmul_s;
  e.attention_s = m * counted * layer.attention_s;
  e.vector_s = m * counted * layer.vector_s;
  e.straggler_s = m * counted * layer.straggler_s;
  e.recompute_s = m * counted * layer.recompute_s;
  e.tp_s = m * counted * layer.tp_s;
  e.ep_s = m * counted * layer.ep_s;
  e.cp_s = m * counted * layer.ring_s;
  e.head_s = last_is_slowest ? m * head_s : 0;
  if (plan.pipeline > 1) {
    const double rate =
        send_rate(device.hardware, plan.devices_per_stage(), device.calibration.link_efficiency.value);
    const double bytes = t * static_cast<double>(c.hidden_size) * kBytes16 / tp;
    // Forward and backward, of every chunk; the sends of one microbatch run beside another's computation.
    e.pp_s = (1 - load.overlap) * m * 2 * static_cast<double>(plan.pipeline_chunks) *
             std::max(device.collective_s, bytes * rate);
  }
  return e.matmul_s + e.attention_s + e.vector_s + e.straggler_s + e.recompute_s + e.tp_s + e.ep_s + e.cp_s +
         e.head_s + e.pp_s;
}

/// The exchange of gradients among copies, the optimizer, and what both keep in memory.
void add_update(TrainingEstimate& e, const spec::ModelConfig& c, const Device& device,
                const spec::ParallelPlan& plan, const TrainingLoad& load) {
  const LayerShare share = layer_share(c, plan);
  const double layers = StageLayers(c, plan).full, link = device.calibration.link_efficiency.value;
  const double vocabulary = static_cast<double>(c.vocab_size) * static_cast<double>(c.hidden_size) /
                            static_cast<double>(plan.attention_tp);
  const double dense = layers * share.dense + vocabulary, experts = layers * share.experts;
  const int64_t dense_copies = plan.replicas * plan.attention_dp * plan.context_parallel;
  if (dense_copies > 1) {
    // fp32 gradients are reduce-scattered, 16-bit weights gathered; experts only among replicas of the stage.
    const double dense_rate = collective_rates(device.hardware, dense_copies, link, plan.attention_tp).gather;
    const double expert_rate =
        plan.replicas > 1
            ? collective_rates(device.hardware, plan.replicas, link, plan.devices_per_stage()).gather
            : 0;
    e.dp_s = (1 - load.dp_overlap) * (kBytes32 + kBytes16) * (dense * dense_rate + experts * expert_rate);
  }
  const double sharded =
      experts / static_cast<double>(plan.replicas) + dense / static_cast<double>(dense_copies);
  e.optimizer_s = sharded * (2 * kMomentsAndMaster + kBytes32 + kBytes16) / device.memory_bandwidth;
  e.weights_bytes = (layers * (share.dense + share.experts) + vocabulary) * (kBytes16 + kBytes32);
  e.optimizer_bytes = sharded * kMomentsAndMaster;
}

/// Interleaved 1F1B keeps p (1 + (p - 1) / (p v)) microbatches' worth of a stage's activations on its first
/// stage (arXiv 2205.05198); with full recompute only each layer's input.
double activation_bytes(const spec::ModelConfig& c, const spec::ParallelPlan& plan, const TrainingLoad& load,
                        int64_t micro_batches) {
  const auto p = static_cast<double>(plan.pipeline), v = static_cast<double>(plan.pipeline_chunks);
  const double t =
      static_cast<double>(load.micro_batch * load.sequence) / static_cast<double>(plan.context_parallel);
  const double kept = load.recompute == Recompute::kFull
                          ? static_cast<double>(c.hidden_size)
                          : static_cast<double>(spec::activation_elements_per_token(c));
  return std::min(static_cast<double>(micro_batches) * v, p * v + p - 1) / v * StageLayers(c, plan).full * t *
         kept * kBytes16 / static_cast<double>(plan.attention_tp);
}

}  // namespace

TrainingEstimate estimate_training(const spec::ModelConfig& c, const Device& device,
                                   const spec::ParallelPlan& plan, const TrainingLoad& load) {
  validate(load, plan, c, device);
  const double micro_tokens = static_cast<double>(load.micro_batch * load.sequence);
  const auto tokens = static_cast<double>(load.global_batch_tokens);
  const auto copies = static_cast<double>(plan.replicas * plan.attention_dp);
  check<UsageError>(tokens >= micro_tokens * copies, "a global batch of ", load.global_batch_tokens,
                    " tokens is less than one microbatch of ", micro_tokens, " tokens for each of ", copies,
                    " data-parallel copies");
  TrainingEstimate e;
  e.micro_batches = static_cast<int64_t>(ceil_div(tokens, micro_tokens * copies));
  e.padded_layers = static_cast<int64_t>(StageLayers(c, plan).padded);

  const double work = add_stage(e, c, device, plan, load);
  e.bubble = (static_cast<double>(plan.pipeline) - 1) /
             (static_cast<double>(plan.pipeline_chunks) * static_cast<double>(e.micro_batches));
  e.bubble_s = e.bubble * work;
  add_update(e, c, device, plan, load);
  e.step_s = work + e.bubble_s + e.dp_s + e.optimizer_s;

  const double model_flops = tokens * spec::flops_per_token(c, load.sequence, spec::Phase::kTraining);
  e.tokens_per_s = tokens / e.step_s;
  e.mfu = model_flops / e.step_s / static_cast<double>(plan.devices()) / device.hardware.peak_16bit();
  e.activation_bytes = activation_bytes(c, plan, load, e.micro_batches);
  e.memory_limit = device.memory_bytes;
  return e;
}

}  // namespace moge::sim
