#include "ops/cpu/vec/quant_matmul.h"

#include "ops/cpu/vec/quant_output.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

// A Dot advances kBytes of both rows at a time. The first n bytes of a row (n < kBytes, zeros behind) come by
// the same loads with n.
#ifdef __AVX512F__
constexpr int kTileRows = 6, kTileCols = 4, kStreamRows = 4;

inline __m512i load_bytes(const char* p) {
  return _mm512_loadu_si512(p);
}
inline __m512i load_bytes(const char* p, int64_t n) {
  return _mm512_maskz_loadu_epi8((uint64_t{1} << n) - 1, p);
}

/// vpdpbusd takes one operand without a sign: w + 128, whose share 128 sum(a) is subtracted at the end. Sums
/// wrap modulo 2^32, so that the difference is exact whenever the product's own sum fits.
struct DotI8 {
  using Sum = int32_t;
  using Acc = __m512i;
  static constexpr int64_t kBytes = 64;
  static constexpr bool kBiased = true;
  template <class... N>
  static __m512i load_a(const char* p, N... n) {
    return load_bytes(p, n...);
  }
  template <class... N>
  static __m512i load_w(const char* p, N... n) {
    return _mm512_xor_si512(load_bytes(p, n...), _mm512_set1_epi8(-128));
  }
  static __m512i zero_w() { return _mm512_set1_epi8(-128); }
  static Acc zero() { return _mm512_setzero_si512(); }
  /// Not the intrinsic, for which GCC 12 copies and spills the sums at each step: half the speed.
  static Acc dot(Acc acc, __m512i a, __m512i w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
    return acc;
  }
  static void store_sums(Sum* to, const Acc (&s)[4], bool add) {
    const auto pairs = [](Acc a, Acc b) {
      return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    };
    const Acc ab = pairs(s[0], s[1]), cd = pairs(s[2], s[3]);
    const Acc lanes = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
    const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    auto* at = reinterpret_cast<__m128i*>(to);
    _mm_storeu_si128(at, add ? _mm_add_epi32(_mm_loadu_si128(at), sums) : sums);
  }
  static void store_sums(Sum* to, const Acc (&s)[1], bool add) {
    *to = (add ? *to : 0) + _mm512_reduce_add_epi32(s[0]);
  }
  static F32 value(const Sum* sums, Sum bias) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_loadu_si512(sums), _mm512_set1_epi32(bias)));
  }
};

struct DotBf16 {
  using Sum = float;
  using Acc = F32;
  static constexpr int64_t kBytes = 64;
  static constexpr bool kBiased = false;
  template <class... N>
  static __m512i load_a(const char* p, N... n) {
    return load_bytes(p, n...);
  }
  template <class... N>
  static __m512i load_w(const char* p, N... n) {
    return load_bytes(p, n...);
  }
  static Acc zero() { return splat(0); }
  static Acc dot(Acc acc, __m512i a, __m512i w) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(w));
  }
  static void store_sums(Sum* to, const Acc (&s)[4], bool add) {
    const auto pairs = [](Acc a, Acc b) {
      return _mm512_castps_pd(_mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b));
    };
    const __m512d ab = pairs(s[0], s[1]), cd = pairs(s[2], s[3]);
    const Acc lanes =
        _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)) + _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    const __m256 half = _mm512_castps512_ps256(lanes) + _mm512_extractf32x8_ps(lanes, 1);
    const __m128 sums = _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
    _mm_storeu_ps(to, add ? _mm_loadu_ps(to) + sums : sums);
  }
  /// In the same order.
  static void store_sums(Sum* to, const Acc (&s)[1], bool add) {
    const Acc copies[4] = {s[0], s[0], s[0], s[0]};
    Sum sums[4];
    store_sums(sums, copies, false);
    *to = (add ? *to : 0) + sums[0];
  }
  static F32 value(const Sum* sums, Sum) { return load(sums); }
};
#else
constexpr int kTileRows = 4, kTileCols = 2, kStreamRows = 2;

/// The first n bytes at p, zeros behind.
struct Bytes {
  Bytes(const char* p, int64_t n) { __builtin_memcpy(data, p, static_cast<uint64_t>(n)); }
  alignas(32) char data[32] = {};
};

/// Widened to 16 bits: vpmaddubsw would saturate.
struct DotI8 {
  using Sum = int32_t;
  using Acc = __m256i;
  static constexpr int64_t kBytes = 16;
  static constexpr bool kBiased = false;
  static __m256i load_a(const char* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static __m256i load_a(const char* p, int64_t n) { return load_a(Bytes(p, n).data); }
  template <class... N>
  static __m256i load_w(const char* p, N... n) {
    return load_a(p, n...);
  }
  static Acc zero() { return _mm256_setzero_si256(); }
  static Acc dot(Acc acc, __m256i a, __m256i w) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, w)); }
  template <int Cols>
  static void store_sums(Sum* to, const Acc (&s)[Cols], bool add) {
#pragma GCC unroll 2
    for (int j = 0; j < Cols; ++j) {
      const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(s[j]), _mm256_extracti128_si256(s[j], 1));
      const __m128i pair = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
      to[j] = (add ? to[j] : 0) + _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 0xb1)));
    }
  }
  static F32 value(const Sum* sums, Sum) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums)));
  }
};

struct DotBf16 {
  struct Pair {
    F32 even, odd;
  };
  using Sum = float;
  using Acc = F32;
  static constexpr int64_t kBytes = 32;
  static constexpr bool kBiased = false;
  static Pair load_a(const char* p) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xffff0000U))))};
  }
  static Pair load_a(const char* p, int64_t n) { return load_a(Bytes(p, n).data); }
  template <class... N>
  static Pair load_w(const char* p, N... n) {
    return load_a(p, n...);
  }
  static Acc zero() { return splat(0); }
  static Acc dot(Acc acc, const Pair& a, const Pair& w) {
    return fma(a.odd, w.odd, fma(a.even, w.even, acc));
  }
  template <int Cols>
  static void store_sums(Sum* to, const Acc (&s)[Cols], bool add) {
#pragma GCC unroll 2
    for (int j = 0; j < Cols; ++j) to[j] = (add ? to[j] : 0) + sum(s[j]);
  }
  static F32 value(const Sum* sums, Sum) {
    return load(sums);
  }
};
#endif

/// Bytes of a row after which sums leave the registers: six rows of a and two tiles' of w so stay in L1. A
/// multiple of every kBytes.
constexpr int64_t kBlockBytes = 2048;

/// sums[Rows, kQuantCols][.., Cols] = (from byte 0) or += a w^T over kBlockBytes of the rows from `begin`.
template <class Dot, int Rows, int Cols>
void tile(typename Dot::Sum* sums, const QuantTile& t, const char* w, int64_t begin) {
  typename Dot::Acc acc[Rows][Cols];
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j) acc[i][j] = Dot::zero();
  const char* a[Rows];
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) a[i] = t.a[i];
  const auto step = [&](int64_t k, auto... n) __attribute__((always_inline)) {
    decltype(Dot::load_w(w)) wv[Cols];
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j) wv[j] = Dot::load_w(w + j * t.row_bytes + k, n...);
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) {
      const auto av = Dot::load_a(a[i] + k, n...);
#pragma GCC unroll 4
      for (int j = 0; j < Cols; ++j) acc[i][j] = Dot::dot(acc[i][j], av, wv[j]);
    }
  };
  const char* ahead = w + t.w_ahead;
  const int64_t end = begin + kBlockBytes < t.row_bytes ? begin + kBlockBytes : t.row_bytes;
  int64_t k = begin;
  for (; k + Dot::kBytes <= end; k += Dot::kBytes) {
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j) __builtin_prefetch(ahead + j * t.row_bytes + k, 0, 3);
    step(k);
  }
  if (k < end) step(k, end - k);
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) Dot::store_sums(sums + i * kQuantCols, acc[i], begin > 0);
}

/// to[Rows]: what the rows' sums hold too much. Side by side, because one row's chain of dots would be waited
/// for at every step.
template <class Dot, int Rows>
void sum_bias(typename Dot::Sum* to, const QuantTile& t) {
  typename Dot::Acc acc[Rows][1];
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) acc[i][0] = Dot::zero();
  const auto step = [&](int64_t k, auto... n) __attribute__((always_inline)) {
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i)
      acc[i][0] = Dot::dot(acc[i][0], Dot::load_a(t.a[i] + k, n...), Dot::zero_w());
  };
  int64_t k = 0;
  for (; k + Dot::kBytes <= t.row_bytes; k += Dot::kBytes) step(k);
  if (k < t.row_bytes) step(k, t.row_bytes - k);
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) Dot::store_sums(to + i, acc[i], false);
}

/// Part `part` of `parts` of the rows that come next.
void fetch_next_rows(const QuantTile& t, int64_t part, int64_t parts) {
  constexpr int64_t kLineBytes = 64;
  const int64_t lines = (t.row_bytes + kLineBytes - 1) / kLineBytes;
  for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; ++line)
    for (int i = 0; i < t.next_rows; ++i) __builtin_prefetch(t.next_a[i] + line * kLineBytes, 0, 2);
}

template <class Dot, int Rows>
void columns(typename Dot::Sum* sums, typename Dot::Sum* bias, const QuantTile& t) {
  if constexpr (Dot::kBiased) sum_bias<Dot, Rows>(bias, t);
  if constexpr (Rows <= kStreamRows) {
    if (t.stream) {
      for (int64_t j = 0; j < t.cols; ++j)
        for (int64_t begin = 0; begin < t.row_bytes; begin += kBlockBytes)
          tile<Dot, Rows, 1>(sums + j, t, t.w + j * t.row_bytes, begin);
      return;
    }
  }
  // A block of the rows stays in L1 while all columns are multiplied by it.
  const int64_t tiles = (t.cols + kTileCols - 1) / kTileCols;
  const int64_t blocks = (t.row_bytes + kBlockBytes - 1) / kBlockBytes;
  for (int64_t i = 0; i < blocks * tiles; ++i) {
    fetch_next_rows(t, i, blocks * tiles);
    const int64_t begin = i / tiles * kBlockBytes;
    int64_t j = i % tiles * kTileCols;
    if (j + kTileCols <= t.cols)
      tile<Dot, Rows, kTileCols>(sums + j, t, t.w + j * t.row_bytes, begin);
    else
      for (; j < t.cols; ++j) tile<Dot, Rows, 1>(sums + j, t, t.w + j * t.row_bytes, begin);
  }
}

template <class Dot>
void multiply(const QuantTile& t) {
  alignas(64) typename Dot::Sum sums[kQuantTileRows * kQuantCols + kLanes] = {};
  typename Dot::Sum bias[kQuantTileRows] = {};
  switch (t.rows) {
    case 1:
      columns<Dot, 1>(sums, bias, t);
      break;
    case 2:
      columns<Dot, 2>(sums, bias, t);
      break;
    case 3:
      columns<Dot, 3>(sums, bias, t);
      break;
    case 4:
      columns<Dot, 4>(sums, bias, t);
      break;
#ifdef __AVX512F__
    case 5:
      columns<Dot, 5>(sums, bias, t);
      break;
    default:
      columns<Dot, 6>(sums, bias, t);
#endif
  }
  for (int i = 0; i < t.rows; ++i)
    finish_row(t.out, i, t.cols, [&](int64_t j) { return Dot::value(sums + i * kQuantCols + j, bias[i]); });
}

}  // namespace

extern const QuantMatmulKernels quant_matmul{kTileRows, kTileCols, kStreamRows, multiply<DotI8>,
                                             multiply<DotBf16>};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
