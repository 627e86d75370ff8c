#include "ops/cpu/quant_matmul.h"

#include <array>
#include <cmath>

#include "ops/cpu/element.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/matmul_groups.h"

namespace moge::ops::cpu {

namespace {

// Products of eight-bit floats and of bf16 are exact in double, so one rounding to fp32 ends the sum. Eight
// sums side by side, for the compiler's vectors.
template <class T, class Value>
float dot(const T* a, const T* w, int64_t K, const Value& value) {
  constexpr int64_t kSums = 8;
  std::array<double, kSums> sums{};
  int64_t k = 0;
  for (; k + kSums <= K; k += kSums)
    for (int64_t i = 0; i < kSums; ++i) sums[i] += double{value(a[k + i])} * value(w[k + i]);
  double sum = 0;
  for (; k < K; ++k) sum += double{value(a[k])} * value(w[k]);
  for (const double s : sums) sum += s;
  return static_cast<float>(sum);
}

constexpr std::array<float, 256> kFP8Values = [] {
  std::array<float, 256> values{};
  for (int bits = 0; bits < 256; ++bits) values[bits] = to_f32(FP8E4M3{static_cast<uint8_t>(bits)});
  return values;
}();

float dot_row(const int8_t* a, const int8_t* w, int64_t K) {
  int32_t sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += int32_t{a[k]} * w[k];
  return static_cast<float>(sum);
}
float dot_row(const FP8E4M3* a, const FP8E4M3* w, int64_t K) {
  return dot(a, w, K, [](FP8E4M3 x) { return kFP8Values[x.bits]; });
}
float dot_row(const BF16* a, const BF16* w, int64_t K) {
  return dot(a, w, K, [](BF16 x) { return to_f32(x); });
}

/// v[r, n] of the contract; row r is that of `token`.
template <class T>
float value(const QuantMatmul& a, int64_t g, int64_t token, int64_t n) {
  const int64_t N = a.w.dim(-2), K = a.w.dim(-1);
  float v = dot_row(a.a.ptr<T>() + token * a.a.stride(0), a.w.ptr<T>() + (g * N + n) * K, K);
  if (a.w_scale) {
    v *= a.w_scale.ptr<float>()[a.offsets ? g * a.w_scale.stride(0) + n : n];
    v *= a.a_scale.ptr<float>()[token * a.a_scale.stride(0)];
  }
  return a.bias ? v + a.bias.ptr<float>()[n] : v;
}

float silu(float x) {
  return static_cast<float>(x / (1 + std::exp(-double{x})));
}

template <class T>
void run_as(ExecContext& ctx, const QuantMatmul& a) {
  const Groups groups("quant_matmul", a.offsets, a.c.dim(0));
  const int32_t* ids = a.row_ids ? a.row_ids.ptr<int32_t>() : nullptr;
  for (int64_t g = 0; g < groups.count(); ++g)
    parallel_for(*ctx.pool, groups.end(g) - groups.begin(g), 1, [&](int64_t first, int64_t last) {
      for (int64_t r = groups.begin(g) + first; r < groups.begin(g) + last; ++r) {
        const int64_t token = ids ? ids[r] : r;
        check<ShapeError>(token >= 0 && token < a.a.dim(0), "quant_matmul: row_ids[", r, "]: expected 0..",
                          a.a.dim(0) - 1, ", got ", token);
        const float weight = a.row_weight ? a.row_weight.ptr<float>()[r] : 1;
        for (int64_t i = 0; i < a.c.dim(1); ++i) {
          const float v = a.silu_mul ? silu(value<T>(a, g, token, gate_up_row(i, false))) *
                                           value<T>(a, g, token, gate_up_row(i, true))
                                     : value<T>(a, g, token, i);
          store_element(a.c, r * a.c.stride(0) + i, v * weight);
        }
      }
    });
}

void run(ExecContext& ctx, const QuantMatmul& a, std::span<std::byte>) {
  if (a.a.dtype == DType::kI8)
    run_as<int8_t>(ctx, a);
  else if (a.a.dtype == DType::kFP8E4M3)
    run_as<FP8E4M3>(ctx, a);
  else
    run_as<BF16>(ctx, a);
}

}  // namespace

std::vector<Impl<QuantMatmul>> quant_matmul_impls() {
  return {{"cpu.ref", DeviceKind::kCpu, supports_all<QuantMatmul>, run}};
}

}  // namespace moge::ops::cpu
