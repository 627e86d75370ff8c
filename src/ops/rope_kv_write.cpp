#include "ops/rope_kv_write.h"

#include "core/match.h"
#include "ops/cpu/rope_kv_write.h"

namespace moge::ops {

void rope_kv_write(ExecContext& ctx, const RopeKvWrite& a) {
  const char* op = "rope_kv_write";
  Dim T("T"), H("H"), KV("KV"), Dh("Dh"), P("P"), PS("PS");
  match(op, "q", a.q, {T, H, Dh}, DType::kBF16);
  match(op, "k_pages", a.k_pages, {P, KV, PS, Dh}, {DType::kBF16, DType::kF16, DType::kI8, DType::kFP8E4M3});
  match(op, "v_pages", a.v_pages, {P, KV, PS, Dh}, a.k_pages.dtype);
  const bool quantised = size_of(a.k_pages.dtype) == 1;
  check<ShapeError>(bool(a.k_scales) == quantised && bool(a.v_scales) == quantised, op,
                    ": expected k_scales and v_scales with eight-bit pages only");
  if (quantised) {
    match(op, "k_scales", a.k_scales, {P, KV, PS}, DType::kF32);
    match(op, "v_scales", a.v_scales, {P, KV, PS}, DType::kF32);
  }
  Dim heads("H + 2 KV", H + 2 * KV);
  match(op, "qkv", a.qkv, {T, heads, Dh}, DType::kBF16);
  if (a.q_norm) match(op, "q_norm", a.q_norm, {Dh}, DType::kF32);
  if (a.k_norm) match(op, "k_norm", a.k_norm, {Dh}, DType::kF32);
  match(op, "cos_sin", a.cos_sin, {T, Dh}, DType::kF32);
  match(op, "slots", a.slots, {T}, DType::kI32);
  check<ShapeError>(Dh % 2 == 0, op, ": expected an even head dimension, got ", Dh.value());
  dispatch(ctx, rope_kv_write_table(), a);
}

OpTable<RopeKvWrite>& rope_kv_write_table() {
  static OpTable<RopeKvWrite> table{"rope_kv_write", cpu::rope_kv_write_impls()};
  return table;
}

}  // namespace moge::ops
