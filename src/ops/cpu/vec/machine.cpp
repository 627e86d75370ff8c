#include "ops/cpu/vec/machine.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

/// Independent chains: latency 4 (6 for vdpbf16ps) times two a cycle, and registers to spare.
constexpr int kChains = 12;
constexpr int64_t kUnroll = 8;
/// Two pages ahead: the hardware prefetcher alone, which stops at each page's end, reads L3 at half this
/// speed.
constexpr int64_t kAhead = 2048;  // floats

/// Keeps the compiler from computing or merging what a loop repeats.
inline void opaque(F32& v) {
  asm volatile("" : "+x"(v));
}

float total(const F32 (&acc)[kChains]) {
  F32 all = acc[0];
  for (int i = 1; i < kChains; ++i) all = all + acc[i];
  return sum(all);
}

float fma_f32(int64_t rounds) {
  F32 acc[kChains];
  F32 x = splat(0.999F), y = splat(0.001F);
  for (F32& a : acc) a = splat(0);
  for (int64_t r = 0; r < rounds; ++r) {
    opaque(x);
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = fma(x, y, acc[i]);
  }
  return total(acc);
}

#ifdef __AVX512F__
float dot_bf16(int64_t rounds) {
  F32 acc[kChains];
  F32 x = splat(0.999F);
  for (F32& a : acc) a = splat(0);
  for (int64_t r = 0; r < rounds; ++r) {
    opaque(x);
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i)
      acc[i] = _mm512_dpbf16_ps(acc[i], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(x));
  }
  return total(acc);
}

/// The instruction itself: vec/quant_matmul.cpp says why.
inline __m512i dot(__m512i acc, __m512i x) {
  asm volatile("vpdpbusd %1, %1, %0" : "+v"(acc) : "v"(x));
  return acc;
}

float dot_i8(int64_t rounds) {
  __m512i acc[kChains];
  const __m512i x = _mm512_set1_epi8(3);
  for (__m512i& a : acc) a = _mm512_setzero_si512();
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = dot(acc[i], x);
  __m512i all = acc[0];
  for (int i = 1; i < kChains; ++i) all = _mm512_add_epi32(all, acc[i]);
  return static_cast<float>(_mm512_reduce_add_epi32(all));
}
#endif

float read(const float* p, int64_t n) {
  F32 acc[kUnroll];
  for (F32& a : acc) a = splat(0);
  for (int64_t i = 0; i < n; i += kUnroll * kLanes)
#pragma GCC unroll 8
    for (int64_t u = 0; u < kUnroll; ++u) {
      __builtin_prefetch(p + i + u * kLanes + kAhead);
      acc[u] = acc[u] + load(p + i + u * kLanes);
    }
  F32 all = acc[0];
  for (int u = 1; u < kUnroll; ++u) all = all + acc[u];
  return sum(all);
}

void copy(float* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    __builtin_prefetch(from + i + kAhead);
    store(to + i, load(from + i));
  }
}

void triad(float* to, const float* a, const float* b, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    __builtin_prefetch(a + i + kAhead);
    __builtin_prefetch(b + i + kAhead);
    store(to + i, fma(splat(3), load(b + i), load(a + i)));
  }
}

}  // namespace

#ifdef __AVX512F__
extern const MachineKernels machine{.fma_f32 = fma_f32,
                                    .fma_f32_flops = kChains * kLanes * 2.0,
                                    .dot_bf16 = dot_bf16,
                                    .dot_bf16_flops = kChains * kLanes * 4.0,
                                    .dot_i8 = dot_i8,
                                    .dot_i8_ops = kChains * kLanes * 8.0,
                                    .read = read,
                                    .copy = copy,
                                    .triad = triad};
#else
extern const MachineKernels machine{.fma_f32 = fma_f32,
                                    .fma_f32_flops = kChains * kLanes * 2.0,
                                    .dot_bf16 = nullptr,
                                    .dot_bf16_flops = 0,
                                    .dot_i8 = nullptr,
                                    .dot_i8_ops = 0,
                                    .read = read,
                                    .copy = copy,
                                    .triad = triad};
#endif

}  // namespace moge::ops::cpu::vec::MOGE_ISA
