#include <algorithm>

#include "cli/layer_ops.h"
#include "model/weights.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

/// Each call has the next copy of the weights and, with groups, the next routing.
std::vector<ops::QuantMatmul> calls_of(const Product& p, const Operands& o,
                                       std::span<const Routing> routings) {
  const auto& [w, scale] = p.weights;
  std::vector<ops::QuantMatmul> calls;
  for (size_t i = 0; i < std::max(w.size(), routings.size()); ++i) {
    const Routing r = routings.empty() ? Routing() : routings[i % routings.size()];
    calls.push_back({.c = o.c,
                     .a = o.a,
                     .a_scale = o.a_scale,
                     .w = w[i % w.size()],
                     .w_scale = scale[i % w.size()],
                     .offsets = r.offsets,
                     .row_ids = p.shape.gathers ? r.row_token : Tensor(),
                     .row_weight = p.shape.weighs ? r.row_weight : Tensor(),
                     .silu_mul = p.shape.silu_mul});
  }
  return calls;
}

StepOp::Call in_turn(std::vector<ops::QuantMatmul> calls) {
  return [calls = std::move(calls)](ExecContext& ctx, size_t i) {
    ops::quant_matmul(ctx, calls[i % calls.size()]);
  };
}

/// Of `experts` experts' weights.
LayerOp product_op(const Product& p, const char* op, ordered_json shape, const Operands& o, double experts,
                   std::span<const Routing> routings) {
  const ProductShape& s = p.shape;
  shape.update({{"n", s.n}, {"k", s.k}});
  const auto n = static_cast<double>(s.n), k = static_cast<double>(s.k);
  return {.what = s.name.c_str(),
          .op = op,
          .shape = std::move(shape),
          .dtype = name_of(s.dtype),
          .bytes = experts * n * k * static_cast<double>(size_of(s.dtype)) +
                   static_cast<double>(o.a.bytes() + o.c.bytes()),
          .flops = 2 * static_cast<double>(o.c.dim(0)) * n * k,
          .step = {in_turn(calls_of(p, o, routings))}};
}

ordered_json routing_shape(const LayerSetup& layer, int64_t T) {
  const spec::ModelConfig& c = layer.config;
  return {{"tokens", T},
          {"experts", c.num_experts},
          {"topk", c.num_experts_per_tok},
          {"groups", c.num_expert_groups}};
}

}  // namespace

LayerOp dense_op(const LayerSetup& layer, ProductIndex product, const Operands& o) {
  return product_op(layer.products[product], "matmul", {{"m", o.c.dim(0)}}, o, 1, {});
}

LayerOp dense_beside_op(const LayerSetup& layer, ProductIndex product, const Operands& o, int64_t T) {
  const Product& p = layer.products[product];
  LayerOp op = dense_op(layer, product, o);
  op.beside_shape = routing_shape(layer, T);
  op.beside_shape.update({{"n", p.shape.n}, {"k", p.shape.k}});
  std::vector<ops::QuantMatmul> calls = calls_of(p, o, {});
  for (ops::QuantMatmul& call : calls) call.beside_previous = true;
  op.step.beside = in_turn(std::move(calls));
  return op;
}

LayerOp router_op(const LayerSetup& layer, const Routings& routings, int64_t T) {
  const int64_t E = layer.config.num_experts;
  ordered_json shape = routing_shape(layer, T);
  shape.update({{"shared", layer.shared}, {"width", layer.D}});
  return {.what = "router",
          .op = "moe_route",
          .shape = shape,
          .dtype = "bf16",
          .bytes = static_cast<double>(T * layer.D * 2 + E * layer.D * 4 + T * layer.slots * 12),
          .flops = 2.0 * static_cast<double>(T * E * layer.D),
          .step = {[&layer, to = routings.written](ExecContext& ctx, size_t) { layer.route(ctx, to); }}};
}

LayerOp routed_op(const LayerSetup& layer, ProductIndex product, const Operands& o, const Routings& routings,
                  int64_t T) {
  return product_op(layer.products[product], "routed_matmul", routing_shape(layer, T), o,
                    routings.experts_hit, routings.drawn);
}

LayerOp grouped_op(const LayerSetup& layer, ProductIndex product, const Operands& o, const Routing& routing,
                   int64_t rows) {
  const Product& p = layer.products[product];
  const ordered_json shape = {{"m", rows}, {"experts", p.shape.groups}};
  return product_op(p, "grouped_matmul", shape, o, static_cast<double>(p.shape.groups), {&routing, 1});
}

std::optional<LayerOp> token_layer_op(const LayerSetup& layer) {
  constexpr size_t kCalls = 8;
  const spec::ModelConfig& c = layer.config;
  if (!c.is_moe() || layer.dtype != DType::kI8) return {};
  const ops::TokenLayer call{.x = layer.acts.x,
                             .qkv = model::flat(layer.acts.qkv),
                             .attn_out = model::flat(layer.acts.attn_out),
                             .norm = layer.norm,
                             .gate = layer.gate,
                             .next_norm = layer.norm,
                             .experts_per_token = static_cast<int>(c.num_experts_per_tok),
                             .num_groups = static_cast<int>(c.num_expert_groups),
                             .renormalize = c.norm_topk_prob};
  std::vector<ops::TokenLayer> calls;
  for (size_t i = 0; i < kCalls; ++i) {
    ops::TokenLayer& one = calls.emplace_back(call);
    const auto take = [&](ProductIndex product, Tensor& w, Tensor& scale) {
      const ProductWeights& p = layer.products[product].weights;
      w = p.w[i % p.w.size()];
      scale = p.scale[i % p.w.size()];
    };
    take(kO, one.o_proj, one.o_scale);
    take(kGateUp, one.gate_up, one.gate_up_scale);
    take(kDown, one.down, one.down_scale);
    if (layer.shared > 0) {
      take(kSharedGateUp, one.shared_gate_up, one.shared_gate_up_scale);
      take(kSharedDown, one.shared_down, one.shared_down_scale);
    }
    take(kQkv, one.next_qkv, one.next_scale);
  }
  if (!ops::has_token_layer(layer.ctx, calls[0])) return {};
  const int64_t D = layer.D, N = layer.products[kQkv].shape.n;
  const int64_t weights = N * D + D * c.q_dim() + model::slots_per_token(c) * 3 * layer.F * D;
  return LayerOp{
      .what = "token_layer",
      .op = "token_layer",
      .shape = {{"tokens", 1},
                {"width", D},
                {"q_width", c.q_dim()},
                {"qkv", N},
                {"expert_width", layer.F},
                {"experts", c.num_experts},
                {"topk", c.num_experts_per_tok},
                {"groups", c.num_expert_groups},
                {"shared", c.num_shared_experts()}},
      .dtype = name_of(layer.dtype),
      .bytes = static_cast<double>(weights + c.num_experts * D * 4),
      .flops = 2 * static_cast<double>(weights),
      .step = {[calls](ExecContext& ctx, size_t i) { ops::token_layer(ctx, calls[i % calls.size()]); }}};
}

}  // namespace moge::cli
