// Causal attention with grouped queries: query head h reads KV head h / (H / KV). Softmax in fp32.
// Prefill and training are bound by compute, decode by the bytes of the cache.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// Variable-length sequences packed in one batch, as in training: sequence b is rows cu_seqlens[b] ..
/// cu_seqlens[b+1]-1; each token sees itself and what precedes it in its own sequence.
struct AttentionFwd {
  Tensor out;         // [T, H, Dh] f32
  Tensor lse;         // [T, H] f32: log sum exp of the scaled scores; optional, needed by the backward
  Tensor q;           // [T, H, Dh] f32; q, k, v may be slices of a fused qkv (rows strided)
  Tensor k;           // [T, KV, Dh] f32
  Tensor v;           // [T, KV, Dh] f32
  Tensor cu_seqlens;  // [B + 1] i32, from 0 to T
  float scale = 0;    // 1 / sqrt(Dh)
};
/// Gradients overwrite dq, dk, dv. Scores are recomputed from q, k and lse.
struct AttentionBwd {
  Tensor dq;          // [T, H, Dh] f32, may be slices of a fused dqkv
  Tensor dk;          // [T, KV, Dh] f32
  Tensor dv;          // [T, KV, Dh] f32
  Tensor dout;        // [T, H, Dh] f32
  Tensor out;         // [T, H, Dh] f32
  Tensor lse;         // [T, H] f32
  Tensor q;           // [T, H, Dh] f32
  Tensor k;           // [T, KV, Dh] f32
  Tensor v;           // [T, KV, Dh] f32
  Tensor cu_seqlens;  // [B + 1] i32
  float scale = 0;
};
/// Attention over a paged KV cache (prefill chunks and decode alike). Sequence b owns query rows cu_q[b] ..
/// cu_q[b+1]-1, the last ones of its kv_lens[b] tokens: row i of n sees cache positions 0 .. kv_lens[b]-n+i.
/// A row's result does not depend on the batch nor on how the prompt was cut into chunks. A sequence of
/// length 0 or less is idle: its rows of `out` are 0.
struct PagedAttention {
  Tensor out;          // [T, H, Dh] f32 | bf16
  Tensor q;            // [T, H, Dh], the dtype of out; rows may be strided
  Tensor k_pages;      // [P, KV, PS, Dh] f32 | bf16 | f16 | i8 | fp8_e4m3
  Tensor v_pages;      // [P, KV, PS, Dh]
  Tensor k_scales;     // [P, KV, PS] f32, with eight-bit pages (ops/rope_kv_write.h)
  Tensor v_scales;     // [P, KV, PS] f32
  Tensor block_table;  // [B, MP] i32: page of each PS cache positions; entries past the length are not used
  Tensor cu_q;         // [B + 1] i32
  Tensor kv_lens;      // [B] i32, this call's tokens included
  float scale = 0;
  /// Query rows of each sequence, the same for all, known to the host: 1 in decode, 1 + drafts when
  /// verifying. 0: unknown or many (prefill). The choice of kernel depends on it, so a caller keeps it per
  /// phase.
  int decode_rows = 0;
};
/// Writes new keys and values into their pages: slot = page * PS + offset.
struct KvWrite {
  Tensor k_pages;  // [P, KV, PS, Dh] f32 | bf16
  Tensor v_pages;  // [P, KV, PS, Dh] f32 | bf16
  Tensor k;        // [T, KV, Dh] f32, rows may be strided
  Tensor v;        // [T, KV, Dh] f32
  Tensor slots;    // [T] i32
};

void attention_fwd(ExecContext& ctx, const AttentionFwd& args);
void attention_bwd(ExecContext& ctx, const AttentionBwd& args);
void paged_attention(ExecContext& ctx, const PagedAttention& args);
void kv_write(ExecContext& ctx, const KvWrite& args);
OpTable<AttentionFwd>& attention_fwd_table();
OpTable<AttentionBwd>& attention_bwd_table();
OpTable<PagedAttention>& paged_attention_table();
OpTable<KvWrite>& kv_write_table();

}  // namespace moge::ops
