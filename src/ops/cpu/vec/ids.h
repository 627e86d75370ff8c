// Indices that a caller gave, checked in vectors and used one by one: what a kernel does with each (a load,
// an addition in memory) is faster than gathers and scatters of it.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// The rows t of `ids` [T, K], `stride` elements apart: four(t, k, ids) for four at a time, one(t, k, id) for
/// the rest. Stops at the first row with an id outside 0..end-1, of which it may have used some; returns how
/// many came before.
template <class Four, class One>
inline __attribute__((always_inline)) int64_t for_ids(const int32_t* ids, int64_t stride, int64_t end,
                                                      int64_t T, int64_t K, const Four& four,
                                                      const One& one) {
  if (end <= 0) return K > 0 ? 0 : T;
  // As unsigned numbers, negative ids are too large as well.
  const __m128i last = _mm_set1_epi32(static_cast<int>(end - 1));
  for (int64_t t = 0; t < T; ++t, ids += stride) {
    int64_t k = 0;
    for (; k + 4 <= K; k += 4) {
      const __m128i id = _mm_loadu_si128(reinterpret_cast<const __m128i*>(ids + k));
      if (_mm_movemask_epi8(_mm_cmpeq_epi32(_mm_min_epu32(id, last), id)) != 0xffff) return t;
      four(t, k, ids + k);
    }
    for (; k < K; ++k) {
      if (static_cast<uint32_t>(ids[k]) >= static_cast<uint64_t>(end)) return t;
      one(t, k, ids[k]);
    }
  }
  return T;
}

}  // namespace
}  // namespace moge::ops::cpu::vec::MOGE_ISA
