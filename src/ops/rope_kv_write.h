// From a fused projection to attention's inputs: rotary positions on q and k (QK-norm before them where the
// model has it), k and v into their cache pages, quantised when the cache is. Bound by bandwidth.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// slots[t] = page * PS + offset, or below 0: q[t] alone is written. Eight-bit pages hold x / scale with one
/// scale per token and head, max|x| / 127 (i8) or / 448 (fp8_e4m3), as in ops/quantize.h; k is quantised
/// after its rotation.
struct RopeKvWrite {
  Tensor q;         // [T, H, Dh] bf16: normed and turned
  Tensor k_pages;   // [P, KV, PS, Dh] bf16 | f16 | i8 | fp8_e4m3
  Tensor v_pages;   // [P, KV, PS, Dh]
  Tensor k_scales;  // [P, KV, PS] f32, with eight-bit pages
  Tensor v_scales;  // [P, KV, PS] f32
  Tensor qkv;       // [T, H + 2 KV, Dh] bf16
  Tensor q_norm;    // [Dh] f32, optional
  Tensor k_norm;    // [Dh] f32, optional
  Tensor cos_sin;   // [T, Dh] f32 (ops/rope.h, RopeTable)
  Tensor slots;     // [T] i32
  float eps = 1e-6F;
};

void rope_kv_write(ExecContext& ctx, const RopeKvWrite& args);
OpTable<RopeKvWrite>& rope_kv_write_table();

}  // namespace moge::ops
