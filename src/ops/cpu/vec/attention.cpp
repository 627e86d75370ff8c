#include "ops/cpu/vec/attention.h"

#include "ops/cpu/vec/bf16.h"
#include "ops/cpu/vec/tile.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

constexpr float kInfinity = __builtin_inff();

int64_t whole_vectors(int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

int64_t first_seeing(const AttentionBlock& b, int64_t key) {
  int64_t r = 0;
  while (r < b.rows && b.visible[r] <= key) ++r;
  return r;
}

/// to[rows, kKeyBlock] = left[rows, Dh] . right[Dh, keys], where visible, from row `first`.
void scores(float* to, const float* left, const float* right, const AttentionBlock& b, int64_t first) {
  const int32_t* visible = b.visible + first;
  const int64_t ld = row_stride(b.Dh);
  matmul(b.rows - first, b.visible[b.rows - 1], to + first * kScoreStride, kScoreStride,
         {left + first * ld, ld, 1}, {right, kPanel, b.Dh * kPanel}, false, [&](int64_t, int64_t end) {
           return Bounds{0, b.Dh, visible[end - 1]};
         });
}

/// Replaces n scores by exp(scale * score - m) with m their largest, the rest of [n, width) by 0.
void softmax_row(float* s, int64_t n, int64_t width, float scale, float* m, float* l) {
  const int64_t whole = whole_vectors(n);
  for (int64_t i = n; i < whole; ++i) s[i] = -kInfinity;
  const F32 factor = splat(scale);
  F32 top = splat(-kInfinity);
  for (int64_t i = 0; i < whole; i += kLanes) top = max(top, load(s + i) * factor);
  *m = max_of(top);
  const F32 shift = splat(*m);
  F32 total = splat(0);
  for (int64_t i = 0; i < whole; i += kLanes) {
    const F32 p = exp(load(s + i) * factor - shift);
    total = total + p;
    store(s + i, p);
  }
  *l = sum(total);
  for (int64_t i = whole; i < width; i += kLanes) store(s + i, splat(0));
}

void fwd(const AttentionFwdBlock& b) {
  const int64_t first = first_seeing(b, 0), Dp = padded(b.Dh), ld = row_stride(b.Dh);
  for (int64_t r = 0; r < first; ++r) b.out.m[r] = -kInfinity;
  if (first == b.rows) return;
  scores(b.s, b.q, b.k_t, b, first);
  const int64_t width = b.visible[b.rows - 1];
  for (int64_t r = first; r < b.rows; ++r)
    softmax_row(b.s + r * kScoreStride, b.visible[r], width, b.scale, b.out.m + r, b.out.l + r);
  matmul(b.rows - first, Dp, b.out.o + first * ld, ld, {b.s + first * kScoreStride, kScoreStride, 1},
         {b.v, ld, kPanel}, false, [&](int64_t, int64_t end) {
           return Bounds{0, b.visible[first + end - 1], Dp};
         });
}

void merge(int64_t rows, int64_t Dh, const AttentionState& state, const AttentionState& block) {
  const int64_t Dp = padded(Dh), ld = row_stride(Dh);
  for (int64_t r = 0; r < rows; ++r) {
    if (block.m[r] == -kInfinity) continue;
    const F32 old_m = splat(state.m[r]), block_m = splat(block.m[r]), m = max(old_m, block_m);
    const F32 keep = exp(old_m - m), gain = exp(block_m - m);
    float* o = state.o + r * ld;
    for (int64_t d = 0; d < Dp; d += kLanes)
      store(o + d, fma(load(o + d), keep, load(block.o + r * ld + d) * gain));
    state.l[r] = max_of(fma(splat(state.l[r]), keep, splat(block.l[r]) * gain));  // all lanes are equal
    state.m[r] = max_of(m);
  }
}

/// p = exp(scale * s - lse), ds = scale * p * (dp - delta), 0 past n up to width.
void gradient_row(float* s, float* ds, int64_t n, int64_t width, float scale, float lse, float delta) {
  const int64_t whole = whole_vectors(n);
  for (int64_t i = n; i < whole; ++i) s[i] = -kInfinity;
  for (int64_t i = n; i < whole; ++i) ds[i] = 0;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const F32 p = exp(load(s + i) * splat(scale) - splat(lse));
    store(s + i, p);
    store(ds + i, splat(scale) * p * (load(ds + i) - splat(delta)));
  }
  for (int64_t i = whole; i < width; i += kLanes) {
    store(s + i, splat(0));
    store(ds + i, splat(0));
  }
}

void bwd(const AttentionBwdBlock& b) {
  const int64_t first = first_seeing(b, 0), Dp = padded(b.Dh), ld = row_stride(b.Dh);
  if (first == b.rows) return;
  scores(b.s, b.q, b.k_t, b, first);
  scores(b.ds, b.dout, b.v_t, b, first);
  const int64_t width = b.visible[b.rows - 1];
  for (int64_t r = first; r < b.rows; ++r)
    gradient_row(b.s + r * kScoreStride, b.ds + r * kScoreStride, b.visible[r], width, b.scale, b.lse[r],
                 b.delta[r]);
  matmul(b.rows - first, Dp, b.dq + first * ld, ld, {b.ds + first * kScoreStride, kScoreStride, 1},
         {b.k, ld, kPanel}, true, [&](int64_t, int64_t end) {
           return Bounds{0, b.visible[first + end - 1], Dp};
         });
  const auto rows_seeing = [&](int64_t key, int64_t) { return Bounds{first_seeing(b, key), b.rows, Dp}; };
  matmul(width, Dp, b.dv, ld, {b.s, 1, kScoreStride}, {b.dout, ld, kPanel}, true, rows_seeing);
  matmul(width, Dp, b.dk, ld, {b.ds, 1, kScoreStride}, {b.q, ld, kPanel}, true, rows_seeing);
}

template <class T>
void pack(float* to, const void* const* rows, int64_t n, int64_t D) {
  pack_rows<T>(to, row_stride(D), rows, n, D, padded(D));
}

void scale(float* to, const float* x, float factor, int64_t n) {
  for_lanes(n,
            [&](int64_t i, int64_t lanes) { store_n(to + i, load_n(x + i, lanes) * splat(factor), lanes); });
}
void scale_bf16(uint16_t* to, const float* x, float factor, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_bf16_n(to + i, load_n(x + i, lanes) * splat(factor), lanes);
  });
}

}  // namespace

extern const AttentionKernels attention{{pack_transposed<float>, pack<float>},
                                        {pack_transposed<uint16_t>, pack<uint16_t>},
                                        fwd,
                                        merge,
                                        bwd,
                                        scale,
                                        scale_bf16};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
