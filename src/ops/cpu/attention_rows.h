// The forward of attention over one block of query rows, shared by training and paged attention: the G query
// heads of a KV head stand together, so that its keys and values are gathered once for all of them.
#pragma once
#include "ops/cpu/attention.h"
#include "ops/cpu/scratch.h"
#include "ops/cpu/vec/attention.h"

namespace moge::ops::cpu {

/// Tokens begin .. begin + count - 1 of the batch, in sequence b.
struct QueryBlock {
  int64_t b, begin, count;
};

/// The batch's tokens in blocks that don't cross sequences: about kRows query rows for a group of G heads.
class QueryBlocks {
 public:
  static constexpr int64_t kRows = 128;
  static int64_t tokens(int64_t G) { return G < kRows ? kRows / G : 1; }
  QueryBlocks(std::span<const int32_t> cu, int64_t G, Scratch& scratch);
  int64_t count() const { return starts_ ? starts_[cu_.size() - 1] : 0; }
  QueryBlock operator[](int64_t i) const;

 private:
  std::span<const int32_t> cu_;
  int64_t tokens_;
  int64_t* starts_;  // [B + 1]: blocks of the sequences before
};

/// One thread's buffers and the steps of a task.
class RowAttention {
 public:
  RowAttention(const vec::AttentionKernels& kernels, int64_t G, int64_t Dh, Scratch& scratch);
  /// Takes the query rows (f32 or bf16) of a block and KV head and forgets what was seen.
  void start(const Tensor& q, const QueryBlock& block, int64_t kv_head);
  /// Attends to the keys at positions begin .. begin + keys - 1 (keys <= kKeyBlock, begin a multiple of it),
  /// `into` overwritten. The block's first token sees the positions below first_visible, the next one more.
  void attend(const vec::PackKernels& pack, const void* const* k_rows, const void* const* v_rows,
              int64_t begin, int64_t keys, int64_t first_visible, float scale,
              const vec::AttentionState& into);
  void merge(const vec::AttentionState& block);
  /// Writes softmax-weighted values (f32 or bf16) and, where lse has memory, the log sum exp.
  void finish(const Tensor& out, const Tensor& lse) const;

  int64_t rows() const { return block_.count * G_; }
  int64_t ld() const { return ld_; }
  const vec::AttentionState& partial() const { return partial_; }  ///< a place for attend()

 private:
  const vec::AttentionKernels& kernels_;
  int64_t G_, Dh_, ld_;
  float *q_, *k_t_, *v_, *s_;
  int32_t* visible_;
  vec::AttentionState state_, partial_;
  QueryBlock block_{};
  int64_t kv_head_ = 0;
};

}  // namespace moge::ops::cpu
