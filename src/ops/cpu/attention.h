// The CPU implementations of ops/attention.h, fastest first, and what their drivers share.
#pragma once
#include "ops/attention.h"

namespace moge::ops::cpu {

std::vector<Impl<AttentionFwd>> attention_fwd_impls();
std::vector<Impl<AttentionBwd>> attention_bwd_impls();
std::vector<Impl<PagedAttention>> paged_attention_impls();
std::vector<Impl<KvWrite>> kv_write_impls();

/// The elements of [T, heads, Dh]: head h of token t.
struct Heads {
  explicit Heads(const Tensor& x)
      : base(x.ptr<float>()), token_stride(x.stride(0)), head_stride(x.stride(1)) {}
  float* at(int64_t t, int64_t h) const { return base + t * token_stride + h * head_stride; }
  float* base;
  int64_t token_stride, head_stride;
};

/// Offsets of B sequences in a batch of T rows. Throws ShapeError unless they rise from 0 to T.
std::span<const int32_t> checked_offsets(const char* op, const char* name, const Tensor& cu, int64_t T);

/// Where a paged batch's cache rows are. The constructor checks lengths and pages (ShapeError).
struct PagedCache {
  explicit PagedCache(const PagedAttention& args);
  /// The offset, in elements, of a cache position's row in k_pages or v_pages, or of its scale.
  int64_t row(const Tensor& pages, int64_t b, int64_t kv_head, int64_t pos) const {
    return table[b * table_stride + pos / PS] * pages.stride(0) + kv_head * pages.stride(1) +
           pos % PS * pages.stride(2);
  }
  std::span<const int32_t> cu_q;  // [B + 1]
  const int32_t* kv_lens;         // [B]
  const int32_t* table;
  int64_t table_stride, PS;
};

/// The reference implementations (attention_ref.cpp).
extern const Impl<AttentionFwd> attention_fwd_ref;
extern const Impl<AttentionBwd> attention_bwd_ref;
extern const Impl<PagedAttention> paged_attention_ref;

}  // namespace moge::ops::cpu
