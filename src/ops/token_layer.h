// Decoding one sequence: all that a MoGE layer does to its token between two attentions, as one op, because
// at a row a product the pauses between ops cost a third of a step. Bound by the bytes of the weights.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// The same numbers, bit for bit, as quantize_rows, quant_matmul (o_proj), residual_norm, moe_route,
/// quant_matmul (gate_up), quantize_rows, quant_matmul (down), residual_norm and quant_matmul (the next
/// layer's qkv) in turn give for T = 1 (model/serving.h); the shared experts are one MLP of their own, whose
/// row comes after the routed experts'. D: width, A: attention heads x their width, E: routed experts, F:
/// their width, SF: the shared experts' together, N: rows of qkv. With `next_qkv` the result is `qkv`;
/// without, after the last layer, `normed`.
struct TokenLayer {
  Tensor x;                     // [1, D] f32: the residual stream, in place
  Tensor qkv;                   // [1, N] bf16, with next_qkv
  Tensor normed;                // [1, D] bf16, without
  Tensor attn_out;              // [1, A] bf16
  Tensor o_proj;                // [D, A] i8
  Tensor o_scale;               // [D] f32
  Tensor o_bias;                // [D] f32, optional
  Tensor norm;                  // [D] f32, before the experts
  Tensor gate;                  // [E, D] f32
  Tensor router_scale;          // [E] f32, optional
  Tensor gate_up;               // [E, 2 F, D] i8, rows as quant_matmul's silu_mul has them
  Tensor gate_up_scale;         // [E, 2 F] f32
  Tensor down;                  // [E, D, F] i8
  Tensor down_scale;            // [E, D] f32
  Tensor shared_gate_up;        // [2 SF, D] i8, optional: as gate_up
  Tensor shared_gate_up_scale;  // [2 SF] f32, with shared_gate_up, like the next two
  Tensor shared_down;           // [D, SF] i8
  Tensor shared_down_scale;     // [D] f32
  Tensor next_norm;             // [D] f32, after the experts
  Tensor next_qkv;              // [N, D] i8, optional
  Tensor next_scale;            // [N] f32, with next_qkv
  Tensor next_bias;             // [N] f32, optional
  int experts_per_token = 0;
  int num_groups = 1;
  bool renormalize = false;
  float eps = 1e-5F;
};

/// Whether an implementation takes it on ctx's device; else, and with MOGE_IMPL=token_layer:none, the caller
/// goes op by op. There is no reference: those ops are. An implementation that MOGE_IMPL names for all ops
/// does not count here. Throws ShapeError where it names one for this op that is not there.
bool has_token_layer(const ExecContext& ctx, const TokenLayer& args);
void token_layer(ExecContext& ctx, const TokenLayer& args);
OpTable<TokenLayer>& token_layer_table();

}  // namespace moge::ops
