#include "ops/cpu/attention_rows.h"

#include <algorithm>
#include <cmath>

namespace moge::ops::cpu {

using vec::kKeyBlock;

namespace {

/// Row (t, h) of [T, H, Dh].
std::byte* head_row(const Tensor& x, int64_t t, int64_t h) {
  return static_cast<std::byte*>(x.data) + (t * x.stride(0) + h * x.stride(1)) * size_of(x.dtype);
}

}  // namespace

QueryBlocks::QueryBlocks(std::span<const int32_t> cu, int64_t G, Scratch& scratch)
    : cu_(cu), tokens_(tokens(G)), starts_(scratch.take<int64_t>(static_cast<int64_t>(cu.size()))) {
  if (!starts_) return;
  starts_[0] = 0;
  for (size_t b = 0; b + 1 < cu.size(); ++b)
    starts_[b + 1] = starts_[b] + (cu[b + 1] - cu[b] + tokens_ - 1) / tokens_;
}

QueryBlock QueryBlocks::operator[](int64_t i) const {
  const int64_t b = std::upper_bound(starts_, starts_ + cu_.size(), i) - starts_ - 1;
  const int64_t begin = cu_[b] + (i - starts_[b]) * tokens_;
  return {b, begin, std::min(tokens_, cu_[b + 1] - begin)};
}

RowAttention::RowAttention(const vec::AttentionKernels& kernels, int64_t G, int64_t Dh, Scratch& scratch)
    : kernels_(kernels), G_(G), Dh_(Dh), ld_(vec::row_stride(Dh)) {
  const int64_t max_rows = QueryBlocks::tokens(G) * G;
  q_ = scratch.take<float>(max_rows * ld_);
  k_t_ = scratch.take<float>(kKeyBlock * Dh);
  v_ = scratch.take<float>(kKeyBlock * ld_);
  s_ = scratch.take<float>(max_rows * vec::kScoreStride);
  visible_ = scratch.take<int32_t>(max_rows);
  for (vec::AttentionState* state : {&state_, &partial_}) {
    state->m = scratch.take<float>(max_rows);
    state->l = scratch.take<float>(max_rows);
    state->o = scratch.take<float>(max_rows * ld_);
  }
}

void RowAttention::start(const Tensor& q, const QueryBlock& block, int64_t kv_head) {
  block_ = block;
  kv_head_ = kv_head;
  for (int64_t r = 0; r < rows(); ++r) {
    const void* row = head_row(q, block.begin + r / G_, kv_head * G_ + r % G_);
    (q.dtype == DType::kF32 ? kernels_.f32 : kernels_.bf16).rows(q_ + r * ld_, &row, 1, Dh_);
  }
  std::fill_n(state_.m, rows(), -INFINITY);
  std::fill_n(state_.l, rows(), 0.0F);
  std::fill_n(state_.o, rows() * ld_, 0.0F);
}

void RowAttention::attend(const vec::PackKernels& pack, const void* const* k_rows, const void* const* v_rows,
                          int64_t begin, int64_t keys, int64_t first_visible, float scale,
                          const vec::AttentionState& into) {
  pack.keys(k_t_, k_rows, keys, Dh_);
  pack.rows(v_, v_rows, keys, Dh_);
  for (int64_t r = 0; r < rows(); ++r)
    visible_[r] = static_cast<int32_t>(std::clamp<int64_t>(first_visible + r / G_ - begin, 0, keys));
  vec::AttentionFwdBlock block;
  block.rows = rows();
  block.keys = keys;
  block.Dh = Dh_;
  block.scale = scale;
  block.visible = visible_;
  block.q = q_;
  block.k_t = k_t_;
  block.s = s_;
  block.v = v_;
  block.out = into;
  kernels_.fwd(block);
}

void RowAttention::merge(const vec::AttentionState& block) {
  kernels_.merge(rows(), Dh_, state_, block);
}

void RowAttention::finish(const Tensor& out, const Tensor& lse) const {
  for (int64_t r = 0; r < rows(); ++r) {
    const int64_t t = block_.begin + r / G_, h = kv_head_ * G_ + r % G_;
    std::byte* to = head_row(out, t, h);
    const float inverse = state_.l[r] == 0 ? 0 : 1 / state_.l[r];  // an idle sequence's rows see nothing
    if (out.dtype == DType::kF32)
      kernels_.scale(reinterpret_cast<float*>(to), state_.o + r * ld_, inverse, Dh_);
    else
      kernels_.scale_bf16(reinterpret_cast<uint16_t*>(to), state_.o + r * ld_, inverse, Dh_);
    if (lse) lse.ptr<float>()[t * lse.stride(0) + h] = state_.m[r] + std::log(state_.l[r]);
  }
}

}  // namespace moge::ops::cpu
