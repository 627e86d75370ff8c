#include "sim/step.h"

#include <cmath>

#include "core/error.h"

namespace moge::sim {

namespace {

constexpr double kBytes16 = 2;
constexpr double kBytes32 = 4;

/// Adds up seconds only: what searches call.
struct TotalSink {
  double total = 0;
  void add(Op, const OpCost& cost, double fixed_s, double count) { total += (cost.work_s + fixed_s) * count; }
};

/// Keeps each operator's share.
struct BreakdownSink {
  StepBreakdown out;
  void add(Op op, const OpCost& cost, double fixed_s, double count) {
    const double seconds = (cost.work_s + fixed_s) * count;
    if (seconds <= 0) return;
    out.seconds += seconds;
    out.bound_seconds[static_cast<int>(cost.bound)] += cost.work_s * count;
    out.bound_seconds[static_cast<int>(Bound::kOverhead)] += fixed_s * count;
    out.ops.push_back({op, seconds, cost.flops * count, cost.bytes * count,
                       fixed_s > cost.work_s ? Bound::kOverhead : cost.bound, cost.basis});
  }
};

const char* dtype_of(const Precision& precision, bool quantised) {
  if (!quantised) return "bf16";
  switch (precision.weights) {
    case WeightFormat::k16:
      return "bf16";
    case WeightFormat::kW8A8:
      return "i8";
    case WeightFormat::kW4A8:
      return "i4";
    case WeightFormat::kFp8:
      return "fp8_e4m3";
  }
  return "?";
}

/// The names of cached elements that a table may have, of the same width.
std::vector<const char*> kv_dtypes(KvFormat format) {
  switch (format) {
    case KvFormat::k16:
      return {"bf16", "f16"};
    case KvFormat::k8:
      return {"fp8_e4m3", "i8"};
    case KvFormat::k4:
      return {"i4"};
  }
  return {};
}

}  // namespace

StepLoad decode_load(double requests, double context, double draft_tokens) {
  return {.decode_requests = requests,
          .decode_rows = 1 + draft_tokens,
          .decode_context = context,
          .draft_tokens = draft_tokens};
}

StepLoad prefill_load(double requests, double input) {
  return {.prefill_tokens = requests * input, .prefill_attended = (input + 1) / 2, .prefill_ends = requests};
}

double tokens_per_step(int64_t draft_tokens, double acceptance) {
  double tokens = 0;
  double reached = 1;
  for (int64_t i = 0; i <= draft_tokens; ++i) {
    tokens += reached;
    reached *= acceptance;
  }
  return tokens;
}

StepModel::StepModel(const spec::ModelConfig& c, const Device& device, Precision precision,
                     const spec::ParallelPlan& plan, double skew, const OpTable* table)
    : table_(table),
      plan_(plan),
      precision_(precision),
      routing_(c, plan.expert_ep, skew),
      is_moe_(c.is_moe()),
      op_s_(device.op_s),
      collective_s_(device.collective_s),
      moe_layer_s_(device.moe_layer_s),
      step_s_(device.step_s),
      score_s_(device.score_s),
      overlap_(device.overlap),
      attention_flops_rate_(device.attention_flops),
      memory_bandwidth_(device.memory_bandwidth),
      kv_bandwidth_(device.kv_bandwidth),
      memory_limit_(device.memory_bytes) {
  plan.validate(c);
  if (plan.context_parallel > 1 || plan.pipeline_chunks > 1 || plan.replicas > 1)
    throw UsageError(str("parallel plan ", plan.str(),
                         ": context_parallel, pipeline_chunks and replicas are of training"));
  if (const auto& m = device.hardware.matmul) {
    tile_ = {static_cast<double>(m->units), static_cast<double>(m->row_step),
             static_cast<double>(m->tile_rows), static_cast<double>(m->tile_cols)};
  }
  const int64_t tp = plan.attention_tp;
  const int64_t R = plan.devices_per_stage();
  const auto kv_heads = static_cast<double>(std::max<int64_t>(1, c.num_key_value_heads / tp));
  const auto Dh = static_cast<double>(c.head_dim);
  D_ = static_cast<double>(c.hidden_size);
  V_ = static_cast<double>(c.vocab_size);
  L_ = static_cast<double>(c.num_hidden_layers);
  experts_ = static_cast<double>(c.num_experts);
  topk_ = static_cast<double>(c.num_experts_per_tok);
  shared_experts_ = static_cast<double>(c.num_shared_experts());
  q_heads_ = static_cast<double>(c.num_attention_heads) / static_cast<double>(tp);
  q_width_ = q_heads_ * Dh;
  kv_width_ = static_cast<double>(spec::kv_elements_per_position(c)) * kv_heads /
              static_cast<double>(c.num_key_value_heads);
  attention_flops_ = static_cast<double>(spec::attention_flops_per_position(c)) / static_cast<double>(tp);

  make_matmuls(c, device);
  if (table) find_measured(c, skew);
  make_rates(c, device);
  activation_elements_ = static_cast<double>(spec::activation_elements_per_token(c));
  shared_share_ = plan.scatters() ? static_cast<double>(plan.shared_tp) / static_cast<double>(R) : 1;

  const double layers = ceil_div(L_, static_cast<double>(plan.pipeline));
  const double experts_here = is_moe_ ? experts_ / static_cast<double>(plan.expert_ep) : 0;
  weights_bytes_ =
      layers * (qkv_.weight_bytes + o_.weight_bytes + gate_up_.weight_bytes + down_.weight_bytes +
                router_.weight_bytes + shared_gate_up_.weight_bytes + shared_down_.weight_bytes +
                experts_here * (expert_gate_up_.weight_bytes + expert_down_.weight_bytes)) +
      lm_head_.weight_bytes * (c.tie_word_embeddings ? 1 : 2);
}

void StepModel::make_matmuls(const spec::ModelConfig& c, const Device& device) {
  const int64_t tp = plan_.attention_tp;
  // Quantised matmuls run at the device's rate of their format, the others at its 16-bit rate.
  const double quantised_rate = device.matmul_flops(precision_.weights);
  const auto rated = [&](Matmul m, bool quantised) {
    m.flops_rate = quantised ? quantised_rate : device.dense_flops;
    return m;
  };
  const spec::LayerLinears w = spec::layer_linears(c);
  qkv_ = rated(matmul(Op::kQkv, w.qkv, tp, 1, true), true);
  qkv_.out = q_width_ + kv_width_;  // key and value heads are repeated where there are fewer than devices
  qkv_.weight_bytes = qkv_.out * qkv_.in * precision_.weight_bytes();
  o_ = rated(matmul(Op::kOProj, w.o, 1, tp, true), true);
  if (is_moe_) {
    router_ = rated(matmul(Op::kRouter, w.router, 1, 1, false), false);
    expert_gate_up_ = rated(matmul(Op::kExpertGateUp, w.expert_gate_up, plan_.expert_tp, 1, true), true);
    expert_down_ = rated(matmul(Op::kExpertDown, w.expert_down, 1, plan_.expert_tp, true), true);
    expert_width_ = expert_down_.in;
    shared_gate_up_ = rated(matmul(Op::kSharedGateUp, w.shared_gate_up, plan_.shared_tp, 1, true), true);
    shared_down_ = rated(matmul(Op::kSharedDown, w.shared_down, 1, plan_.shared_tp, true), true);
    shared_width_ = shared_down_.in;
  } else {
    gate_up_ = rated(matmul(Op::kGateUp, w.mlp_gate_up, plan_.shared_tp, 1, true), true);
    down_ = rated(matmul(Op::kDown, w.mlp_down, 1, plan_.shared_tp, true), true);
    mlp_width_ = down_.in;
  }
  lm_head_ = rated(matmul(Op::kLmHead, spec::lm_head_linear(c), plan_.devices_per_stage(), 1, false), false);
  draft_projection_ =
      rated(matmul(Op::kDraft, {c.hidden_size, 2 * c.hidden_size}, plan_.devices_per_stage(), 1, true), true);
}

void StepModel::make_rates(const spec::ModelConfig& c, const Device& device) {
  const int64_t R = plan_.devices_per_stage();
  const double link = device.calibration.link_efficiency.value;
  // Of a dense model, only the devices that share an MLP talk about it.
  const CollectiveRates stage = collective_rates(device.hardware, is_moe_ ? R : plan_.shared_tp, link);
  tp_rate_ = collective_rates(device.hardware, plan_.attention_tp, link).gather;
  stage_rate_ = stage.gather;
  stage_exchange_rate_ = stage.all_to_all;
  logits_rate_ = collective_rates(device.hardware, R, link).gather;
  send_rate_ = plan_.pipeline > 1 ? send_rate(device.hardware, R, link) : 0;
  check<UsageError>(max_devices(device.hardware) == 0 || plan_.devices() <= max_devices(device.hardware),
                    device.hardware.name, " joins ", max_devices(device.hardware),
                    " devices, the plan needs ", plan_.devices());
  if (is_moe_) {
    const auto ep = static_cast<double>(plan_.expert_ep);
    // MoGE sends every token to every part; top-K to those that hold one of its K experts.
    const double parts =
        c.num_expert_groups % plan_.expert_ep == 0 ? ep : ep * (1 - std::pow(1 - 1 / ep, topk_));
    expert_copies_ = parts * static_cast<double>(plan_.expert_tp);
  }
}

void StepModel::find_measured(const spec::ModelConfig& c, double skew) {
  const auto heads = static_cast<int64_t>(q_heads_);
  const std::vector<int64_t> attention = {heads, static_cast<int64_t>(kv_width_) / 2 / c.head_dim,
                                          c.head_dim};
  for (const char* kv : kv_dtypes(precision_.kv)) {
    const auto of_cache = [&](const OpSurface*& surface, const char* op) {
      if (!surface) surface = table_->find(op, kv, attention);
    };
    of_cache(kernels_.attention, "attention");
    of_cache(kernels_.prefill_attention, "prefill_attention");
    of_cache(kernels_.rope_kv_write, "rope_kv_write");
  }
  const int64_t D = c.hidden_size, shared = c.num_shared_experts(), shared_mlp = shared > 0 ? 1 : 0;
  if (plan_.devices_per_stage() == 1) {  // between their products several devices talk to each other
    const char* dtype = dtype_of(precision_, true);
    kernels_.norm = table_->find("residual_norm", dtype, {D, 1});
    if (is_moe_) {
      kernels_.norm_combine = table_->find("residual_norm", dtype, {D, c.num_experts_per_tok + shared_mlp});
      kernels_.moe_route = table_->find(
          "moe_route", "bf16", {D, c.num_experts, c.num_experts_per_tok, c.num_expert_groups, shared_mlp});
      kernels_.token_layer =
          table_->find("token_layer", dtype,
                       {D, c.q_dim(), c.q_dim() + static_cast<int64_t>(kv_width_), c.moe_intermediate_size,
                        c.num_experts, c.num_experts_per_tok, c.num_expert_groups, shared});
      if (skew == 0) {
        const auto with_routing = [&](const char* op, const Matmul& m) {
          return table_->find(op, dtype,
                              {static_cast<int64_t>(m.out), static_cast<int64_t>(m.in), c.num_experts,
                               c.num_experts_per_tok, c.num_expert_groups});
        };
        for (Matmul* m : {&expert_gate_up_, &expert_down_}) m->routed = with_routing("routed_matmul", *m);
        if (expert_gate_up_.routed)
          kernels_.shared_gate_up = with_routing("matmul_beside_routed", shared_gate_up_);
        if (expert_down_.routed) kernels_.shared_down = with_routing("matmul_beside_routed", shared_down_);
      }
    }
    kernels_.attention_quant = table_->find("quantize_rows", dtype, {c.q_dim()});
    kernels_.mlp_quant =
        table_->find("quantize_rows", dtype, {is_moe_ ? c.moe_intermediate_size : c.intermediate_size});
    if (shared > 0)
      kernels_.shared_quant = table_->find("quantize_rows", dtype, {c.shared_expert_intermediate_size});
  }
  kernels_.sampling = table_->find("sampling", "f32", {c.vocab_size});
  kernels_.step_inputs = table_->find("step_inputs", "bf16", {D, c.head_dim});
  kernels_.prompt_inputs = table_->find("prompt_inputs", "bf16", {D, c.head_dim});
}

OpCost StepModel::measured(OpCost cost, const OpSurface* surface, double rows, double length) const {
  if (!surface || rows <= 0) return cost;
  cost.work_s = surface->seconds(rows, length);
  cost.basis = surface->has(rows, length) ? Basis::kMeasured : Basis::kInterpolated;
  return cost;
}

StepModel::Matmul StepModel::matmul(Op op, spec::LinearShape whole, int64_t out_split, int64_t in_split,
                                    bool quantised) const {
  Matmul m;
  m.out = static_cast<double>(whole.out) / static_cast<double>(out_split);
  m.in = static_cast<double>(whole.in) / static_cast<double>(in_split);
  m.weight_bytes = m.out * m.in * (quantised ? precision_.weight_bytes() : kBytes16);
  m.in_bytes = quantised ? precision_.activation_bytes() : kBytes16;
  m.col_tiles = std::max(1.0, ceil_div(m.out, tile_.tile_cols));
  if (!table_) return m;
  const char* dtype = dtype_of(precision_, quantised);
  const auto n = static_cast<int64_t>(m.out);
  const auto k = static_cast<int64_t>(m.in);
  if (op != Op::kExpertGateUp && op != Op::kExpertDown) {
    m.measured = table_->find("matmul", dtype, {n, k});
    return m;
  }
  m.measured =
      table_->find("grouped_matmul", dtype, {n, k, static_cast<int64_t>(experts_) / plan_.expert_ep});
  return m;
}

OpCost StepModel::matmul_cost(const Matmul& m, double rows) const {
  OpCost cost;
  if (rows <= 0) return cost;
  const double padded = ceil_div(rows, tile_.row_step) * tile_.row_step;
  cost.flops = 2 * rows * m.out * m.in;
  cost.bytes = m.weight_bytes + rows * (m.in * m.in_bytes + m.out * kBytes16);
  const double waves = tile_.units > 0 ? wave_factor(tile_, padded, m.col_tiles) : 1;
  const double compute_s = 2 * padded * m.out * m.in * waves / m.flops_rate;
  const double memory_s = cost.bytes / memory_bandwidth_;
  cost.bound = compute_s > memory_s ? Bound::kCompute : Bound::kMemory;
  cost.work_s = std::max(compute_s, memory_s);
  return measured(cost, m.measured, rows);
}

/// `rows` over `distinct` experts: their numbers are random, so each expert pads half a step on average.
OpCost StepModel::grouped_cost(const Matmul& expert, double rows, double distinct) const {
  OpCost cost;
  if (rows <= 0) return cost;
  const double padded = rows + distinct * (tile_.row_step - 1) / 2;
  cost.flops = 2 * rows * expert.out * expert.in;
  cost.bytes = distinct * expert.weight_bytes + rows * (expert.in * expert.in_bytes + expert.out * kBytes16);
  const double waves =
      tile_.units > 0 ? wave_factor(tile_, padded / distinct, distinct * expert.col_tiles) : 1;
  const double compute_s = 2 * padded * expert.out * expert.in * waves / expert.flops_rate;
  const double memory_s = cost.bytes / memory_bandwidth_;
  cost.bound = compute_s > memory_s ? Bound::kCompute : Bound::kMemory;
  cost.work_s = std::max(compute_s, memory_s);
  // Measured with rows for every expert; fewer of them are read in proportion.
  if (expert.measured) {
    const double all = experts_ / static_cast<double>(plan_.expert_ep);
    cost.work_s = expert.measured->seconds(rows / distinct) * distinct / all;
    cost.basis = Basis::kInterpolated;
  }
  return cost;
}

/// The transfer of keys and values, and the vector units' work on each score, which do not overlap.
OpCost StepModel::decode_attention_cost(double requests, double rows, double context) const {
  OpCost cost;
  const double scores = requests * rows * context * q_heads_;
  cost.flops = requests * rows * context * attention_flops_;
  cost.bytes = requests * context * kv_width_ * precision_.kv_bytes();
  const double transfer_s = cost.bytes / kv_bandwidth_;
  const double vector_s = scores * score_s_;
  cost.work_s = transfer_s + vector_s;
  cost.bound = transfer_s >= vector_s ? Bound::kMemory : Bound::kVector;
  return rows == 1 ? measured(cost, kernels_.attention, requests, context) : cost;
}

/// A prompt's last chunk attends to more than its own tokens: it is that part of a prompt of twice as many.
OpCost StepModel::prefill_attention_cost(double tokens, double attended) const {
  OpCost cost;
  cost.flops = tokens * attended * attention_flops_;
  cost.bytes = tokens * (2 * q_width_ + kv_width_) * kBytes16;
  cost.work_s = cost.flops / attention_flops_rate_;
  cost.bound = Bound::kCompute;
  const double length = 2 * attended - 1;
  const double sequences = tokens / length;
  cost = measured(cost, kernels_.prefill_attention, std::max(1.0, sequences), length);
  if (cost.basis != Basis::kFormula) cost.work_s *= std::min(1.0, sequences);
  return cost;
}

OpCost StepModel::vector_cost(double bytes) const {
  return {.flops = 0, .bytes = bytes, .work_s = bytes / memory_bandwidth_, .bound = Bound::kMemory};
}

/// The least time of a collective is its fixed part; what the bytes need beyond it is work.
OpCost StepModel::collective_cost(double bytes, double rate) const {
  return {.flops = 0,
          .bytes = bytes,
          .work_s = std::max(0.0, bytes * rate - collective_s_),
          .bound = Bound::kNetwork};
}

/// A measured time has the fixed part in it.
template <class Sink>
void StepModel::add_kernel(Sink& sink, Op op, OpCost cost, double count) const {
  double fixed_s = op_s_;
  if (cost.basis != Basis::kFormula) {
    fixed_s = std::min(op_s_, cost.work_s);
    cost.work_s -= fixed_s;
  }
  sink.add(op, cost, fixed_s, count);
}

/// One layer of one of the `share`s that a load is cut into; it counts `count` times.
template <class Sink>
class StepModel::Layer {
 public:
  Layer(const StepModel& model, const StepLoad& load, double share, double count, Sink& sink)
      : m_(model),
        load_(load),
        sink_(sink),
        count_(count),
        scatter_(m_.plan_.scatters()),
        dp_(static_cast<double>(m_.plan_.attention_dp)),
        requests_(ceil_div(load.decode_requests * share, dp_)),
        prompt_(ceil_div(load.prefill_tokens * share, dp_)),
        rows_(requests_ * load.decode_rows + prompt_),
        all_rows_(load.tokens() * share),
        norm_rows_(scatter_ ? ceil_div(rows_, static_cast<double>(m_.plan_.attention_tp)) : rows_),
        stage_bytes_(rows_ * dp_ * m_.D_ * kBytes16),
        quant_bytes_(m_.precision_.activation_bytes()) {}

  void add() const {
    if (m_.kernels_.token_layer && rows_ == 1 && requests_ == 1) return add_joined();
    add_attention();
    kernel(Op::kMlpNorm, m_.measured(norm(), m_.kernels_.norm, norm_rows_));
    if (m_.is_moe_)
      add_moe();
    else
      add_mlp();
  }

 private:
  void kernel(Op op, const OpCost& cost) const { m_.add_kernel(sink_, op, cost, count_); }
  /// Of `bytes` at `rate` seconds a byte; fused with a product of `hiding_s`, that hides a part of it.
  void collective(Op op, double bytes, double rate, double hiding_s) const {
    if (rate <= 0) return;
    OpCost cost = m_.collective_cost(bytes, rate);
    const double hidden = scatter_ ? m_.overlap_ * std::min(hiding_s, cost.work_s + m_.collective_s_) : 0;
    const double fixed = std::max(0.0, m_.collective_s_ - hidden);
    cost.work_s = std::max(0.0, cost.work_s - std::max(0.0, hidden - m_.collective_s_));
    sink_.add(op, cost, fixed, count_);
  }
  /// Of input, residual in and out, output.
  OpCost norm() const { return m_.vector_cost(norm_rows_ * (m_.D_ * (3 * kBytes16 + quant_bytes_))); }
  OpCost decode_attention() const {
    return m_.decode_attention_cost(requests_, load_.decode_rows, load_.decode_context);
  }

  void add_rope_and_kv_write() const {
    const OpCost rope = m_.vector_cost(rows_ * (m_.q_width_ + m_.kv_width_ / 2) * 2 * kBytes16);
    const OpCost kv_write = m_.vector_cost(rows_ * m_.kv_width_ * (kBytes16 + m_.precision_.kv_bytes()));
    if (m_.kernels_.rope_kv_write) {
      kernel(Op::kRopeKvWrite,
             m_.measured(m_.vector_cost(rope.bytes + kv_write.bytes), m_.kernels_.rope_kv_write, rows_));
    } else {
      kernel(Op::kRope, rope);
      kernel(Op::kKvWrite, kv_write);
    }
  }

  /// Of one token, all between two attentions as one kernel.
  void add_joined() const {
    add_rope_and_kv_write();
    kernel(Op::kAttention, decode_attention());
    const double experts = m_.topk_ + m_.shared_experts_;
    OpCost all = m_.matmul_cost(m_.qkv_, rows_);
    for (const OpCost& part : {m_.matmul_cost(m_.o_, rows_), m_.matmul_cost(m_.router_, rows_),
                               m_.grouped_cost(m_.expert_gate_up_, experts, experts),
                               m_.grouped_cost(m_.expert_down_, experts, experts)}) {
      all.flops += part.flops;
      all.bytes += part.bytes;
    }
    kernel(Op::kTokenLayer, m_.measured(all, m_.kernels_.token_layer, rows_));
  }

  void add_attention() const {
    const double hidden_bytes = rows_ * m_.D_ * kBytes16;  // of a replica's tokens
    const OpCost qkv = m_.matmul_cost(m_.qkv_, rows_);
    const OpCost o = m_.matmul_cost(m_.o_, rows_);
    kernel(Op::kAttentionNorm,
           m_.measured(norm(), m_.is_moe_ ? m_.kernels_.norm_combine : m_.kernels_.norm, norm_rows_));
    if (scatter_) collective(Op::kAttentionAllGather, hidden_bytes, m_.tp_rate_, qkv.work_s);
    kernel(Op::kQkv, qkv);
    add_rope_and_kv_write();
    if (requests_ > 0) kernel(Op::kAttention, decode_attention());
    if (prompt_ > 0)
      kernel(Op::kPrefillAttention, m_.prefill_attention_cost(prompt_, load_.prefill_attended));
    if (m_.precision_.weights != WeightFormat::k16)
      kernel(Op::kAttentionQuant, m_.measured(m_.vector_cost(rows_ * m_.q_width_ * (kBytes16 + quant_bytes_)),
                                              m_.kernels_.attention_quant, rows_));
    kernel(Op::kOProj, o);
    collective(Op::kAttentionReduce, hidden_bytes, scatter_ ? m_.tp_rate_ : 2 * m_.tp_rate_, o.work_s);
  }

  void add_mlp() const {
    const double rows = scatter_ ? rows_ * dp_ * m_.shared_share_ : rows_;
    const double bytes = scatter_ ? stage_bytes_ * m_.shared_share_ : stage_bytes_;
    const OpCost gate_up = m_.matmul_cost(m_.gate_up_, rows);
    const OpCost down = m_.matmul_cost(m_.down_, rows);
    if (scatter_) collective(Op::kMlpAllGather, bytes, m_.stage_rate_, gate_up.work_s);
    kernel(Op::kGateUp, gate_up);
    kernel(Op::kSwiglu, m_.measured(m_.vector_cost(rows * m_.mlp_width_ * (2 * kBytes16 + quant_bytes_)),
                                    m_.kernels_.mlp_quant, rows));
    kernel(Op::kDown, down);
    collective(Op::kMlpReduce, bytes, scatter_ ? m_.stage_rate_ : 2 * m_.stage_rate_, down.work_s);
  }

  void add_moe() const {
    // Gathering all tokens everywhere, or sending each to the devices of its experts.
    const double exchange_rate = std::min(m_.stage_rate_, m_.expert_copies_ * m_.stage_exchange_rate_);
    const double expert_rows = m_.routing_.mean_rows(all_rows_) * m_.routing_.straggler(all_rows_);
    const double distinct = m_.routing_.distinct_experts(all_rows_);
    const OpCost gate_up = m_.measured(m_.grouped_cost(m_.expert_gate_up_, expert_rows, distinct),
                                       m_.expert_gate_up_.routed, all_rows_);
    const OpCost down = m_.measured(m_.grouped_cost(m_.expert_down_, expert_rows, distinct),
                                    m_.expert_down_.routed, all_rows_);
    if (scatter_) collective(Op::kMlpAllGather, stage_bytes_, exchange_rate, gate_up.work_s);
    add_routing(expert_rows);
    kernel(Op::kExpertGateUp, gate_up);
    // Where our engine was measured its products end with SiLU, and a kernel quantises what they give.
    const double hidden = expert_rows * m_.expert_width_;
    if ((m_.expert_gate_up_.routed || m_.expert_gate_up_.measured) && m_.kernels_.mlp_quant)
      kernel(Op::kExpertQuant, m_.measured(m_.vector_cost(hidden * (kBytes16 + quant_bytes_)),
                                           m_.kernels_.mlp_quant, expert_rows));
    else
      kernel(Op::kExpertSwiglu, m_.vector_cost(hidden * (2 * kBytes16 + quant_bytes_)));
    kernel(Op::kExpertDown, down);
    if (!m_.kernels_.norm_combine)
      kernel(Op::kCombine, m_.vector_cost((expert_rows + all_rows_) * m_.D_ * kBytes16));
    if (m_.shared_width_ > 0) add_shared();
    collective(Op::kMlpReduce, stage_bytes_, scatter_ ? exchange_rate : 2 * m_.stage_rate_, down.work_s);
  }

  void add_routing(double expert_rows) const {
    const OpCost router = m_.matmul_cost(m_.router_, all_rows_);
    if (m_.kernels_.moe_route)
      return kernel(Op::kMoeRoute, m_.measured(router, m_.kernels_.moe_route, all_rows_));
    kernel(Op::kRouter, router);
    kernel(Op::kSoftmax, m_.vector_cost(all_rows_ * m_.experts_ * 2 * kBytes32));
    kernel(Op::kGroupTopk, m_.vector_cost(all_rows_ * m_.experts_ * kBytes32));
    kernel(Op::kRouterScale, m_.vector_cost(all_rows_ * m_.topk_ * 4 * kBytes32));
    kernel(Op::kSortExperts, m_.vector_cost(all_rows_ * m_.topk_ * 4 * kBytes32));
    kernel(Op::kPermute, m_.vector_cost(expert_rows * m_.D_ * 2 * quant_bytes_));
    sink_.add(Op::kMoeLayer, {.bound = Bound::kOverhead}, m_.moe_layer_s_, count_);
  }

  void add_shared() const {
    const double rows = all_rows_ * m_.shared_share_;
    kernel(Op::kSharedGateUp,
           m_.measured(m_.matmul_cost(m_.shared_gate_up_, rows), m_.kernels_.shared_gate_up, rows));
    kernel(Op::kSharedSwiglu,
           m_.measured(m_.vector_cost(rows * m_.shared_width_ * (2 * kBytes16 + quant_bytes_)),
                       m_.kernels_.shared_quant, rows));
    kernel(Op::kSharedDown,
           m_.measured(m_.matmul_cost(m_.shared_down_, rows), m_.kernels_.shared_down, rows));
  }

  const StepModel& m_;
  const StepLoad& load_;
  Sink& sink_;
  double count_;
  bool scatter_;
  double dp_;
  double requests_, prompt_;  // of the fullest replica; whole requests and tokens
  double rows_;               // of that replica
  double all_rows_;
  double norm_rows_;    // of a device
  double stage_bytes_;  // of all tokens
  double quant_bytes_;  // of an element
};

template <class Sink>
void StepModel::step(const StepLoad& load, Sink& sink) const {
  const auto stages = static_cast<double>(plan_.pipeline);
  const double stage_layers = ceil_div(L_, stages);
  // Decoding keeps one part of the batch in every stage. A prefill's first token waits for the last part.
  double parts = stages;
  double passes = stages;
  if (load.decode_requests == 0) {
    parts = std::max(1.0, std::min(stages, load.prefill_ends));
    passes = parts + stages - 1;
  }
  const double head_rows = load.decode_tokens() + load.prefill_ends;
  const bool decodes = load.prefill_tokens == 0;
  add_kernel(sink, Op::kEmbedding,
             measured(vector_cost(load.tokens() * D_ * 2 * kBytes16),
                      decodes ? kernels_.step_inputs : kernels_.prompt_inputs, load.tokens()),
             1);
  Layer(*this, load, 1 / parts, passes * stage_layers, sink).add();
  if (stages > 1) {
    const double bytes = load.tokens() / parts * D_ * kBytes16 /
                         static_cast<double>(plan_.devices_per_stage());  // each device sends its share
    sink.add(Op::kPipelineSend, collective_cost(bytes, send_rate_), collective_s_, passes - 1);
  }
  add_kernel(sink, Op::kFinalNorm, vector_cost(head_rows * D_ * 3 * kBytes16), 1);
  add_kernel(sink, Op::kLmHead, matmul_cost(lm_head_, head_rows), 1);
  if (plan_.devices_per_stage() > 1)
    sink.add(Op::kLogitsGather, collective_cost(head_rows * V_ * kBytes16, logits_rate_), collective_s_, 1);
  if (load.draft_tokens > 0 && load.decode_requests > 0) {
    // One layer like the model's, behind a projection of [hidden state, next token's embedding] to D.
    TotalSink draft;
    const StepLoad one{.decode_requests = load.decode_requests, .decode_context = load.decode_context};
    Layer(*this, one, 1, 1, draft).add();
    add_kernel(draft, Op::kDraft, matmul_cost(draft_projection_, load.decode_requests), 1);
    add_kernel(draft, Op::kDraft, matmul_cost(lm_head_, load.decode_requests), 1);
    sink.add(Op::kDraft, {.work_s = draft.total, .bound = Bound::kMemory}, 0, load.draft_tokens);
  }
  if (kernels_.sampling)
    add_kernel(sink, Op::kSampling,
               measured(vector_cost(head_rows * V_ * kBytes32), kernels_.sampling, head_rows), 1);
  // Steps that only decode are launched ahead of the device: what they begin and end with is all that is
  // left.
  if (!(decodes && kernels_.sampling && kernels_.step_inputs))
    sink.add(Op::kStep, {.bound = Bound::kOverhead}, step_s_, 1);
}

double StepModel::seconds(const StepLoad& load) const {
  TotalSink sink;
  step(load, sink);
  return sink.total;
}

StepBreakdown StepModel::explain(const StepLoad& load) const {
  BreakdownSink sink;
  step(load, sink);
  const double* longest =
      std::max_element(std::begin(sink.out.bound_seconds), std::end(sink.out.bound_seconds));
  sink.out.bottleneck = static_cast<Bound>(longest - std::begin(sink.out.bound_seconds));
  return sink.out;
}

DeviceMemory StepModel::memory(double cached_requests, double cached_positions, double step_tokens) const {
  const auto dp = static_cast<double>(plan_.attention_dp);
  const auto R = static_cast<double>(plan_.devices_per_stage());
  const double layers = ceil_div(L_, static_cast<double>(plan_.pipeline));
  const double replica_tokens = ceil_div(step_tokens, dp);
  DeviceMemory m;
  m.weights = weights_bytes_;
  m.kv_cache = ceil_div(cached_requests, dp) * cached_positions * layers * kv_width_ * precision_.kv_bytes();
  // One layer's intermediates, split over the devices; residual stream and gathered tokens are whole.
  m.activations = step_tokens * activation_elements_ * kBytes16 / R +
                  (replica_tokens + step_tokens) * D_ * kBytes16 +
                  std::min(step_tokens, cached_requests) * V_ * kBytes16;
  m.limit = memory_limit_;
  return m;
}

}  // namespace moge::sim
