#include "ops/token_layer.h"

#include <cmath>

#include "ops/harness.h"
#include "ops/moe_route.h"
#include "ops/quant_matmul.h"
#include "ops/quantize.h"
#include "ops/residual_norm.h"

namespace moge::test {
namespace {

using ops::TokenLayer;

struct Dims {
  int64_t D, A, E, K, F, SF, N;  ///< N = 0: after the last layer; the others as token_layer.h names them
  int G;
  bool biased = false, scaled = false, renormalize = false;
  bool perf = false;
  bool large = false;

  std::string params() const {
    return str("D=", D, " A=", A, " E=", E, " K=", K, " G=", G, " F=", F, " SF=", SF, " N=", N, " i8",
               biased ? " bias" : "", scaled ? " scaled" : "", renormalize ? " renormalized" : "");
  }
  /// The weights of a token's experts, and all that every token reads.
  double bytes() const {
    const int64_t i8 = A * D + 3 * D * (K * F + SF) + N * D;
    const int64_t scales = D + K * (2 * F + D) + (SF > 0 ? 2 * SF + D : 0) + N;
    return static_cast<double>(i8 + 4 * (scales + E * D));
  }
};

TokenLayer make(Inputs& in, const Dims& d) {
  constexpr float kSize = 32;
  const auto weight = [&](Shape shape) { return in.normal(shape, kSize, DType::kI8); };
  // Such that products with rows of size one come out of size one.
  const auto scale = [&](Shape shape, int64_t width) {
    const float s = 1 / (kSize * std::sqrt(static_cast<float>(width)));
    return in.uniform(shape, s / 2, 2 * s);
  };
  const auto bias = [&](int64_t width) { return d.biased ? in.normal({width}) : Tensor(); };
  const bool shared = d.SF > 0, next = d.N > 0;
  const Tensor none;
  return {.x = in.normal({1, d.D}, 3),
          .qkv = next ? in.output({1, d.N}, DType::kBF16) : none,
          .normed = next ? none : in.output({1, d.D}, DType::kBF16),
          .attn_out = in.normal({1, d.A}, 1, DType::kBF16),
          .o_proj = weight({d.D, d.A}),
          .o_scale = scale({d.D}, d.A),
          .o_bias = bias(d.D),
          .norm = in.uniform({d.D}, 0.5F, 2),
          .gate = in.normal({d.E, d.D}, 1 / std::sqrt(static_cast<float>(d.D))),
          .router_scale = d.scaled ? in.uniform({d.E}, 0.5F, 2) : none,
          .gate_up = weight({d.E, 2 * d.F, d.D}),
          .gate_up_scale = scale({d.E, 2 * d.F}, d.D),
          .down = weight({d.E, d.D, d.F}),
          .down_scale = scale({d.E, d.D}, d.F),
          .shared_gate_up = shared ? weight({2 * d.SF, d.D}) : none,
          .shared_gate_up_scale = shared ? scale({2 * d.SF}, d.D) : none,
          .shared_down = shared ? weight({d.D, d.SF}) : none,
          .shared_down_scale = shared ? scale({d.D}, d.SF) : none,
          .next_norm = in.uniform({d.D}, 0.5F, 2),
          .next_qkv = next ? weight({d.N, d.D}) : none,
          .next_scale = next ? scale({d.N}, d.D) : none,
          .next_bias = next ? bias(d.N) : none,
          .experts_per_token = static_cast<int>(d.K),
          .num_groups = d.G,
          .renormalize = d.renormalize};
}

/// What the ops that TokenLayer replaces hand to each other, from `begin` on.
struct Between {
  Between(const TokenLayer& a, std::byte* begin) {
    const auto take = [&](DType dtype, Shape shape) {
      const Tensor t(begin ? begin + bytes : nullptr, dtype, shape, a.x.device);
      bytes += align_up(t.bytes(), 256);
      return t;
    };
    const int64_t D = a.x.dim(1), K = a.experts_per_token, F = a.down.dim(2);
    const int64_t S = a.shared_down ? 1 : 0, SF = S > 0 ? a.shared_down.dim(1) : 0;
    attn_q = take(DType::kI8, a.attn_out.shape);
    attn_scale = take(DType::kF32, {1});
    delta = take(DType::kBF16, {1, D});
    normed = take(DType::kBF16, {1, D});
    q = take(DType::kI8, {1, D});
    q_scale = take(DType::kF32, {1});
    topk_ids = take(DType::kI32, {1, K});
    topk_weights = take(DType::kF32, {1, K});
    offsets = take(DType::kI32, {a.gate.dim(0) + S + 1});
    row_token = take(DType::kI32, {K + S});
    row_weight = take(DType::kF32, {K + S});
    slot_row = take(DType::kI32, {1, K + S});
    h = take(DType::kBF16, {K, F});
    h_q = take(DType::kI8, {K, F});
    h_scale = take(DType::kF32, {K});
    down = take(DType::kBF16, {K + S, D});
    if (S == 0) return;
    shared_h = take(DType::kBF16, {1, SF});
    shared_h_q = take(DType::kI8, {1, SF});
    shared_h_scale = take(DType::kF32, {1});
  }
  Tensor attn_q, attn_scale, delta, normed, q, q_scale, topk_ids, topk_weights, offsets, row_token,
      row_weight, slot_row, h, h_q, h_scale, down, shared_h, shared_h_q, shared_h_scale;
  int64_t bytes = 0;
};

/// The ops in the order in which model/serving.cpp calls them.
void run_ops(ExecContext& ctx, const TokenLayer& a, const Between& b) {
  const int64_t K = a.experts_per_token;
  const Tensor none;
  ops::quantize_rows(ctx, {.q = b.attn_q, .scale = b.attn_scale, .x = a.attn_out});
  ops::quant_matmul(ctx, {.c = b.delta,
                          .a = b.attn_q,
                          .a_scale = b.attn_scale,
                          .w = a.o_proj,
                          .w_scale = a.o_scale,
                          .bias = a.o_bias});
  ops::residual_norm(ctx, {.x = a.x,
                           .delta = b.delta,
                           .weight = a.norm,
                           .normed = b.normed,
                           .q = b.q,
                           .q_scale = b.q_scale,
                           .eps = a.eps,
                           .keep_x = true});
  ops::moe_route(ctx, {.topk_ids = b.topk_ids,
                       .topk_weights = b.topk_weights,
                       .offsets = b.offsets,
                       .row_token = b.row_token,
                       .row_weight = b.row_weight,
                       .slot_row = b.slot_row,
                       .x = b.normed,
                       .gate = a.gate,
                       .router_scale = a.router_scale,
                       .num_groups = a.num_groups,
                       .renormalize = a.renormalize});
  const Tensor offsets = b.offsets.slice(0, 0, a.gate.dim(0) + 1);
  ops::quant_matmul(ctx, {.c = b.h,
                          .a = b.q,
                          .a_scale = b.q_scale,
                          .w = a.gate_up,
                          .w_scale = a.gate_up_scale,
                          .offsets = offsets,
                          .row_ids = b.row_token.slice(0, 0, K),
                          .silu_mul = true});
  if (b.shared_h) {
    ops::quant_matmul(ctx, {.c = b.shared_h,
                            .a = b.q,
                            .a_scale = b.q_scale,
                            .w = a.shared_gate_up,
                            .w_scale = a.shared_gate_up_scale,
                            .silu_mul = true,
                            .beside_previous = true});
    ops::quantize_rows(ctx, {.q = b.shared_h_q, .scale = b.shared_h_scale, .x = b.shared_h});
  }
  ops::quantize_rows(ctx, {.q = b.h_q, .scale = b.h_scale, .x = b.h});
  ops::quant_matmul(ctx, {.c = b.down.slice(0, 0, K),
                          .a = b.h_q,
                          .a_scale = b.h_scale,
                          .w = a.down,
                          .w_scale = a.down_scale,
                          .offsets = offsets,
                          .row_weight = b.row_weight.slice(0, 0, K)});
  if (b.shared_h)
    ops::quant_matmul(ctx, {.c = b.down.slice(0, K, K + 1),
                            .a = b.shared_h_q,
                            .a_scale = b.shared_h_scale,
                            .w = a.shared_down,
                            .w_scale = a.shared_down_scale,
                            .beside_previous = true});
  ops::residual_norm(ctx, {.x = a.x,
                           .delta = b.delta,
                           .rows = b.down,
                           .slot_row = b.slot_row,
                           .weight = a.next_norm,
                           .normed = a.normed,
                           .q = a.next_qkv ? b.q : none,
                           .q_scale = a.next_qkv ? b.q_scale : none,
                           .eps = a.eps});
  if (a.next_qkv)
    ops::quant_matmul(ctx, {.c = a.qkv,
                            .a = b.q,
                            .a_scale = b.q_scale,
                            .w = a.next_qkv,
                            .w_scale = a.next_scale,
                            .bias = a.next_bias});
}

int64_t op_by_op_bytes(const ExecContext& ctx, const TokenLayer& a) {
  const Between between(a, nullptr);
  Workspace workspace;
  ExecContext planning = ctx;
  planning.workspace = &workspace;
  planning.planning = true;
  run_ops(planning, a, between);
  return between.bytes + workspace.planned_bytes();
}

void op_by_op(ExecContext& ctx, const TokenLayer& a, std::span<std::byte> memory) {
  const Between between(a, memory.data());
  Workspace workspace(memory.subspan(static_cast<size_t>(between.bytes)));
  ExecContext inner = ctx;
  inner.workspace = &workspace;
  run_ops(inner, a, between);
}

/// The op has no reference, and bits are compared: that is the single ops, on the same device.
std::vector<std::string> impls() {
  OpTable<TokenLayer>& table = ops::token_layer_table();
  if (!table.impls.empty() && table.impls.back().run != op_by_op)
    table.impls.push_back({"cuda.op_by_op", DeviceKind::kCuda, [](const TokenLayer&) { return Refusal(); },
                           op_by_op, op_by_op_bytes});
  std::vector<std::string> names;
  for (const Impl<TokenLayer>& impl : table.impls) names.emplace_back(impl.name);
  return names;
}

const Cases cases([] {
  for (const Dims& d : {Dims{256, 256, 16, 4, 64, 128, 384, 4, true, true},
                        {256, 512, 16, 4, 64, 0, 384, 1, false, false, true},
                        {256, 256, 16, 4, 64, 128, 0, 4, true},
                        {1536, 1024, 64, 8, 96, 384, 2048, 8, false, true},
                        {1024, 2048, 48, 12, 208, 416, 640, 6, true, true, true},
                        {5120, 5120, 64, 8, 1344, 5376, 7168, 8, true, true, false, false, true},
                        {5120, 5120, 64, 8, 1344, 5376, 7168, 8, true, true, false, true}}) {
    add<TokenLayer>(
        ops::token_layer_table(),
        {.params = d.params(),
         .make = [=](Inputs& in) { return make(in, d); },
         .outputs = {{"x", &TokenLayer::x}, {"qkv", &TokenLayer::qkv}, {"normed", &TokenLayer::normed}},
         .perf = d.perf,
         .gpu_only = true,
         .slow_races = d.large,
         .bytes = d.bytes()});
    all_cases().back().impls = impls;
  }
});

}  // namespace
}  // namespace moge::test
