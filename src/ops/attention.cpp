#include "ops/attention.h"

#include "core/match.h"
#include "ops/cpu/attention.h"

namespace moge::ops {

namespace {

/// The heads of q and k, once matched.
void check_groups(const char* op, int64_t H, int64_t KV) {
  check<ShapeError>(KV > 0 && H % KV == 0, op, ": expected H to be a multiple of KV, got H=", H, " KV=", KV);
}

}  // namespace

void attention_fwd(ExecContext& ctx, const AttentionFwd& a) {
  const char* op = "attention_fwd";
  Dim T("T"), H("H"), KV("KV"), Dh("Dh"), B1("B + 1");
  match(op, "q", a.q, {T, H, Dh}, DType::kF32);
  match(op, "k", a.k, {T, KV, Dh}, DType::kF32);
  match(op, "v", a.v, {T, KV, Dh}, DType::kF32);
  match(op, "out", a.out, {T, H, Dh}, DType::kF32);
  if (a.lse) match(op, "lse", a.lse, {T, H}, DType::kF32);
  match(op, "cu_seqlens", a.cu_seqlens, {B1}, DType::kI32);
  check_groups(op, H, KV);
  dispatch(ctx, attention_fwd_table(), a);
}

void attention_bwd(ExecContext& ctx, const AttentionBwd& a) {
  const char* op = "attention_bwd";
  Dim T("T"), H("H"), KV("KV"), Dh("Dh"), B1("B + 1");
  match(op, "q", a.q, {T, H, Dh}, DType::kF32);
  match(op, "k", a.k, {T, KV, Dh}, DType::kF32);
  match(op, "v", a.v, {T, KV, Dh}, DType::kF32);
  match(op, "out", a.out, {T, H, Dh}, DType::kF32);
  match(op, "dout", a.dout, {T, H, Dh}, DType::kF32);
  match(op, "lse", a.lse, {T, H}, DType::kF32);
  match(op, "dq", a.dq, {T, H, Dh}, DType::kF32);
  match(op, "dk", a.dk, {T, KV, Dh}, DType::kF32);
  match(op, "dv", a.dv, {T, KV, Dh}, DType::kF32);
  match(op, "cu_seqlens", a.cu_seqlens, {B1}, DType::kI32);
  check_groups(op, H, KV);
  dispatch(ctx, attention_bwd_table(), a);
}

void paged_attention(ExecContext& ctx, const PagedAttention& a) {
  const char* op = "paged_attention";
  Dim T("T"), H("H"), KV("KV"), Dh("Dh"), P("P"), PS("PS"), MP("MP"), B("B"), B1("B + 1");
  match(op, "q", a.q, {T, H, Dh}, {DType::kF32, DType::kBF16});
  match(op, "out", a.out, {T, H, Dh}, a.q.dtype);
  match(op, "k_pages", a.k_pages, {P, KV, PS, Dh},
        {DType::kF32, DType::kBF16, DType::kF16, DType::kI8, DType::kFP8E4M3});
  match(op, "v_pages", a.v_pages, {P, KV, PS, Dh}, a.k_pages.dtype);
  const bool quantised = size_of(a.k_pages.dtype) == 1;
  check<ShapeError>(bool(a.k_scales) == quantised && bool(a.v_scales) == quantised, op,
                    ": expected k_scales and v_scales with eight-bit pages only");
  if (quantised) {
    match(op, "k_scales", a.k_scales, {P, KV, PS}, DType::kF32);
    match(op, "v_scales", a.v_scales, {P, KV, PS}, DType::kF32);
  }
  match(op, "kv_lens", a.kv_lens, {B}, DType::kI32);
  match(op, "block_table", a.block_table, {B, MP}, DType::kI32);
  match(op, "cu_q", a.cu_q, {B1}, DType::kI32);
  check<ShapeError>(B1 == B + 1, op, ": cu_q: expected B + 1 = ", B + 1, " entries, got ", int64_t{B1});
  check_groups(op, H, KV);
  dispatch(ctx, paged_attention_table(), a);
}

void kv_write(ExecContext& ctx, const KvWrite& a) {
  const char* op = "kv_write";
  Dim T("T"), KV("KV"), Dh("Dh"), P("P"), PS("PS");
  match(op, "k", a.k, {T, KV, Dh}, DType::kF32);
  match(op, "v", a.v, {T, KV, Dh}, DType::kF32);
  match(op, "k_pages", a.k_pages, {P, KV, PS, Dh}, {DType::kF32, DType::kBF16});
  match(op, "v_pages", a.v_pages, {P, KV, PS, Dh}, a.k_pages.dtype);
  match(op, "slots", a.slots, {T}, DType::kI32);
  dispatch(ctx, kv_write_table(), a);
}

OpTable<AttentionFwd>& attention_fwd_table() {
  static OpTable<AttentionFwd> table{"attention_fwd", cpu::attention_fwd_impls()};
  return table;
}

OpTable<AttentionBwd>& attention_bwd_table() {
  static OpTable<AttentionBwd> table{"attention_bwd", cpu::attention_bwd_impls()};
  return table;
}

OpTable<PagedAttention>& paged_attention_table() {
  static OpTable<PagedAttention> table{"paged_attention", cpu::paged_attention_impls()};
  return table;
}

OpTable<KvWrite>& kv_write_table() {
  static OpTable<KvWrite> table{"kv_write", cpu::kv_write_impls()};
  return table;
}

}  // namespace moge::ops
