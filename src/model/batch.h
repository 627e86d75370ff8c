// What a forward pass reads besides the weights.
#pragma once
#include <vector>

#include "core/tensor.h"

namespace moge::model {

/// T tokens of B sequences, packed. With a cache, `block_table`, `kv_lens` and `slots` say where the
/// sequences' keys and values lie (ops/attention.h: PagedAttention, KvWrite).
struct Batch {
  Tensor tokens;       // [T] i32
  Tensor positions;    // [T] i32
  Tensor cu_seqlens;   // [B + 1] i32: first row of each sequence
  Tensor block_table;  // [B, MP] i32, only with a cache
  Tensor kv_lens;      // [B] i32, only with a cache
  Tensor slots;        // [T] i32, only with a cache

  int64_t num_tokens() const { return tokens.dim(0); }
  int64_t num_sequences() const { return cu_seqlens.dim(0) - 1; }
};

/// Keys and values of one layer's past tokens.
struct KvPages {
  Tensor k, v;                // [P, KV, PS, Dh]
  Tensor k_scales, v_scales;  // [P, KV, PS] f32, with eight-bit pages (ops/rope_kv_write.h)
};

/// The same for every layer; no scales unless the pages have eight bits.
struct KvCache {
  std::vector<Tensor> k_pages;
  std::vector<Tensor> v_pages;
  std::vector<Tensor> k_scales;
  std::vector<Tensor> v_scales;

  KvPages layer(int64_t l) const {
    const auto i = static_cast<size_t>(l);
    return {k_pages[i], v_pages[i], k_scales.empty() ? Tensor() : k_scales[i],
            v_scales.empty() ? Tensor() : v_scales[i]};
  }
};

}  // namespace moge::model
