// Block kernels of attention: a block of query rows against one block of keys (flash attention, Dao et al.,
// arXiv 2205.14135). Every key block is attended to on its own and merged afterwards, in rising order, so
// that blocks computed in one task (prefill) or in many (decode) give the same bits.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

inline constexpr int64_t kKeyBlock = 128;  ///< blocks begin at multiples of this position in a sequence

/// Rows of Dh values are padded with zeros to whole vectors of either instruction set and lie an odd number
/// of cache lines apart: at powers of two they would crowd into a few sets of the cache.
inline constexpr int64_t kLine = 16;  ///< floats
constexpr int64_t padded(int64_t n) {
  return (n + kLine - 1) / kLine * kLine;
}
constexpr int64_t row_stride(int64_t n) {
  return (padded(n) / kLine | 1) * kLine;
}
inline constexpr int64_t kScoreStride = row_stride(kKeyBlock);

/// What a block of query rows sees of a block of keys. visible[r], not falling with r, counts row r's keys.
struct AttentionBlock {
  int64_t rows, keys, Dh;
  float scale;
  const int32_t* visible;  // [rows] in 0..keys
  const float* q;          // [rows, Dh]
  const float* k_t;        // pack_keys: [Dh, keys]
  float* s;                // [rows, kKeyBlock] by kScoreStride: scratch
};
/// Softmax state of rows: m = largest score, l = sum of exp(score - m), o = sum of exp(score - m) * value.
struct AttentionState {
  float* m;  // [rows]; -inf: nothing seen yet
  float* l;  // [rows]
  float* o;  // [rows, Dh]
};
struct AttentionFwdBlock : AttentionBlock {
  const float* v;      // [keys, Dh]
  AttentionState out;  // (=), except the rows that see nothing: those only get m = -inf
};
struct AttentionBwdBlock : AttentionBlock {
  const float* k;      // [keys, Dh]
  const float* v_t;    // pack_keys: [Dh, keys]
  const float* dout;   // [rows, Dh]
  const float* lse;    // [rows]
  const float* delta;  // [rows]: dout . out
  float* ds;           // [rows, kKeyBlock] by kScoreStride: scratch
  float* dq;           // [rows, Dh] (+=)
  float* dk;           // [keys, Dh] (+=)
  float* dv;           // [keys, Dh] (+=)
};

/// Gathers n rows of D values: as the transposed operand of scores, or side by side.
struct PackKernels {
  void (*keys)(float* k_t, const void* const* rows, int64_t n, int64_t D);
  void (*rows)(float* to, const void* const* rows, int64_t n, int64_t D);
};
struct AttentionKernels {
  PackKernels f32, bf16;
  void (*fwd)(const AttentionFwdBlock& block);
  /// Adds a block's state to what precedes it.
  void (*merge)(int64_t rows, int64_t Dh, const AttentionState& state, const AttentionState& block);
  void (*bwd)(const AttentionBwdBlock& block);
  /// to[n] = x[n] * factor.
  void (*scale)(float* to, const float* x, float factor, int64_t n);
  void (*scale_bf16)(uint16_t* to, const float* x, float factor, int64_t n);
};
namespace avx2 {
extern const AttentionKernels attention;
}
namespace avx512 {
extern const AttentionKernels attention;
}

}  // namespace moge::ops::cpu::vec
