// Everything between two products of a serving step, in one pass over the residual stream: add what the last
// block computed, normalise (RMSNorm), quantise for the next product. Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// x[t] += delta[t], then x[t] += rows[slot_row[t, s]], slot after slot (fp32; the unpermute of an MoE, eq.
/// 7); with neither x is only read. Then n = x / sqrt(mean(x^2) + eps) * weight goes out as bf16 (`normed`),
/// as eight bits with a scale per row (ops/quantize.h), or both. With `keep_x` the sum goes into n alone: a
/// later call that adds the same delta again, before its rows, writes the bits that two calls would have.
struct ResidualNorm {
  Tensor x;         // [T, D] f32, in place
  Tensor delta;     // [T, D] bf16, optional
  Tensor rows;      // [R, D] bf16, optional; with slot_row
  Tensor slot_row;  // [T, S] i32
  Tensor weight;    // [D] f32
  Tensor normed;    // [T, D] bf16, optional
  Tensor q;         // [T, D] i8 | fp8_e4m3, optional
  Tensor q_scale;   // [T] f32, with q
  float eps = 1e-5F;
  bool keep_x = false;
};

void residual_norm(ExecContext& ctx, const ResidualNorm& args);
OpTable<ResidualNorm>& residual_norm_table();

}  // namespace moge::ops
