#include "ops/quant_matmul.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::QuantMatmul;

struct Dims {
  std::vector<int64_t> rows;  ///< of each group; one number: dense
  int64_t N, K;
  DType dtype;
  DType out = DType::kBF16;
  bool silu = false, gather = false, weighted = false, biased = false;
  bool slow_races = false;
  bool perf = false;
  bool gpu_only = false;
  bool packed = false;  ///< the weight through pack_quant_weight

  int64_t R() const {
    int64_t sum = 0;
    for (const int64_t r : rows) sum += r;
    return sum;
  }
  int64_t G() const { return static_cast<int64_t>(rows.size()); }
  std::string params() const {
    std::string s = str("R=", R());
    if (G() > 1) s += str(" G=", G(), " (", rows[0], ",", rows[1], "..)");
    return s + str(" N=", N, " K=", K, " ", name_of(dtype), " to ", name_of(out), silu ? " silu" : "",
                   gather ? " gather" : "", weighted ? " weighted" : "", biased ? " bias" : "",
                   packed ? " packed" : "");
  }
  /// Weights of the groups that have rows once, activations and result once.
  double bytes() const {
    int64_t groups = 0;
    for (const int64_t r : rows) groups += r > 0;
    const int64_t element = size_of(dtype);
    return static_cast<double>(groups * N * K * element +
                               R() * (K * element + (silu ? N / 2 : N) * size_of(out)));
  }
};

Tensor weight(Inputs& in, const Dims& d, float size) {
  const Tensor w = in.normal(d.G() > 1 ? Shape{d.G(), d.N, d.K} : Shape{d.N, d.K}, size, d.dtype);
  Bench bench(1);
  return d.packed ? ops::pack_quant_weight(bench.ctx, w) : w;
}

QuantMatmul make(Inputs& in, const Dims& d) {
  const int64_t R = d.R(), G = d.G(), T = d.gather ? R / 2 + 1 : R;
  const bool scaled = d.dtype != DType::kBF16, grouped = G > 1;
  const float size = d.dtype == DType::kI8 ? 32.0F : d.dtype == DType::kFP8E4M3 ? 100.0F : 1.0F;
  std::vector<int32_t> offsets{0};
  for (const int64_t r : d.rows) offsets.push_back(offsets.back() + static_cast<int32_t>(r));
  // Scales such that products come out of size one and silu bends.
  const float s = 1 / (size * std::sqrt(std::sqrt(static_cast<float>(d.K))));
  return {.c = in.output({R, d.silu ? d.N / 2 : d.N}, d.out),
          .a = in.normal({T, d.K}, size, d.dtype),
          .a_scale = scaled ? in.uniform({T}, s / 2, 2 * s) : Tensor{},
          .w = weight(in, d, size),
          .w_scale = !scaled   ? Tensor{}
                     : grouped ? in.uniform({G, d.N}, s / 2, 2 * s)
                               : in.uniform({d.N}, s / 2, 2 * s),
          .bias = d.biased ? in.normal({d.N}) : Tensor{},
          .offsets = grouped ? in.values(offsets) : Tensor{},
          .row_ids = d.gather ? in.ints({R}, 0, static_cast<int32_t>(T)) : Tensor{},
          .row_weight = d.weighted ? in.uniform({R}, 0, 1) : Tensor{},
          .silu_mul = d.silu};
}

/// What an fp8 instruction (K = 32) of the tensor core may lose of each element of c, in units of its sum's
/// last place: it aligns the 32 products and the sum so far to the largest of the 33 and cuts each off 13
/// bits below that one's leading bit (DeepSeek-V3, arXiv 2412.19437, 3.3.2). Summed over the instructions.
std::vector<double> aligned_magnitude(const QuantMatmul& q) {
  constexpr int64_t kInstruction = 32;
  const int64_t R = q.c.dim(0), N = q.w.dim(-2), K = q.w.dim(-1), G = q.offsets ? q.w.dim(0) : 1;
  const std::vector<double> a = to_doubles(q.a), w = to_doubles(q.w);
  std::vector<double> magnitude(static_cast<size_t>(R * N));
  for (int64_t r = 0, g = 0; r < R; ++r) {
    while (g + 1 < G && r >= q.offsets.ptr<int32_t>()[g + 1]) ++g;
    const int64_t t = q.row_ids ? q.row_ids.ptr<int32_t>()[r] : r;
    const double row_scale = q.a_scale.ptr<float>()[t] * (q.row_weight ? q.row_weight.ptr<float>()[r] : 1.0F);
    for (int64_t n = 0; n < N; ++n) {
      const double* x = &a[static_cast<size_t>(t * K)];
      const double* y = &w[static_cast<size_t>((g * N + n) * K)];
      double sum = 0, largest_sum = 0;
      for (int64_t k = 0; k < K;) {
        double largest = std::abs(sum);
        for (const int64_t end = std::min(K, k + kInstruction); k < end; ++k) {
          largest = std::max(largest, std::abs(x[k] * y[k]));
          sum += x[k] * y[k];
        }
        largest_sum += largest;
      }
      magnitude[static_cast<size_t>(r * N + n)] =
          largest_sum * row_scale * static_cast<double>(q.w_scale.ptr<float>()[g * N + n]);
    }
  }
  return magnitude;
}

std::vector<Output<QuantMatmul>> outputs(const Dims& d) {
  // i8 sums are exact, and without SiLU the CPU rounds what follows as the reference does.
  Output<QuantMatmul> exact{"c", &QuantMatmul::c};
  exact.holds_for = [exact_on_cpu = d.dtype == DType::kI8 && !d.silu](std::string_view impl) {
    return exact_on_cpu && impl.starts_with("cpu");
  };
  // bf16 results: theirs and the reference's rounding. fp32 results: i8 sums are exact and five roundings
  // follow; the products of bf16 and fp8 are exact and their sum walks at random.
  if (d.out == DType::kBF16) return {exact, {"c", &QuantMatmul::c, 2, 0x1p-8}};
  if (d.dtype == DType::kI8) return {exact, {"c", &QuantMatmul::c, 8}};
  Output<QuantMatmul> f32_sums{"c", &QuantMatmul::c, 8 + 4 * std::sqrt(static_cast<double>(d.K))};
  if (d.dtype == DType::kBF16) return {f32_sums};
  const auto by_tensor_core = [](std::string_view impl) { return impl.starts_with("cuda.swift_gmm"); };
  f32_sums.holds_for = std::not_fn(by_tensor_core);
  // Each of an instruction's 32 products and its sum loses less than a unit.
  return {f32_sums, {"c", &QuantMatmul::c, 33, 0x1p-13, aligned_magnitude, by_tensor_core}};
}

void add_case(const Dims& d) {
  add<QuantMatmul>(ops::quant_matmul_table(), {.params = d.params(),
                                               .make = [=](Inputs& in) { return make(in, d); },
                                               .outputs = outputs(d),
                                               .perf = d.perf,
                                               .gpu_only = d.gpu_only,
                                               .slow_races = d.slow_races,
                                               .flops = 2 * static_cast<double>(d.R() * d.N * d.K),
                                               .bytes = d.bytes()});
  AnyCase& any = all_cases().back();
  if (d.packed)
    any.refusal = [on_cpu = any.refusal](const std::string& impl) -> std::string {
      return on_gpu(impl) ? "weights are packed for the CPU only" : on_cpu(impl);
    };
}

const Cases cases([] {
  const DType bf16 = DType::kBF16, f32 = DType::kF32;
  const auto slow = [](Dims d) {
    d.slow_races = true;
    return d;
  };
  const auto packed = [](Dims d) {
    d.packed = true;
    return d;
  };
  const auto for_gpu = [&](Dims d) {
    d = slow(d);
    d.gpu_only = true;
    return d;
  };
  // As a router leaves them: 0 to 9 rows each.
  const auto experts = [](int64_t n) {
    std::vector<int64_t> rows(static_cast<size_t>(n));
    for (int64_t g = 0; g < n; ++g) rows[static_cast<size_t>(g)] = g * 7 % 10;
    return rows;
  };
  for (const DType dtype : {DType::kI8, DType::kFP8E4M3, bf16}) {
    for (const int64_t n : {64, 128}) {
      add_case({experts(n), 64, 128, dtype, bf16, true, true, true, false, n == 64});
      add_case(for_gpu({experts(n), 192, 128, dtype, f32, false, false, true}));
    }
    add_case(for_gpu({{4096}, 320, 192, dtype}));
    add_case(for_gpu({{1500, 0, 7, 1093, 1496}, 320, 192, dtype, bf16, true, true}));
    add_case({{64}, 128, 256, dtype});
    for (const int64_t R : {1, 7, 8, 63, 65}) add_case(slow({{R}, 128, 256, dtype}));
    add_case({{0}, 128, 256, dtype});
    add_case({{9}, 96, 192, dtype, f32});
    add_case({{1}, 1, 1, dtype, f32});
    add_case({{5}, 33, 77, dtype, f32, false, true, true, true});  // no whole step, tile or line
    add_case({{11, 0, 6}, 48, 203, dtype, bf16, true, true, true});
    add_case({{65}, 256, 512, dtype, f32, false, false, true, true});
    add_case({{5, 0, 63, 1}, 128, 256, dtype, bf16, false, true, true});
    add_case(slow({{0, 0, 130, 0}, 128, 256, dtype, f32, false, true}));  // all on one expert
    add_case({{1, 7, 8, 0, 64, 65}, 192, 256, dtype, bf16, true, true});
    add_case(slow({{3, 70}, 64, 128, dtype, bf16, true, false, true}));
    add_case(slow({{2, 0, 1}, 2688, 640, dtype, bf16, true, true}));  // Pangu's width of two experts
    add_case(slow({{1, 2, 0}, 640, 1344, dtype, bf16, false, false, true}));
    // more rows than a tile has: whole and partial tiles, an odd number of them, features that fill no pair
    add_case(slow({{515}, 320, 192, dtype, bf16, false, true}));
    add_case(slow({{300, 0, 2, 530}, 160, 208, dtype, bf16, true, true, true}));
    add_case(slow({{0, 257, 600}, 288, 96, dtype, f32}));
    // more of the tallest tiles than multiprocessors: one slice of the inner dimension, a half one, both
    const int64_t element = size_of(dtype);
    add_case(slow({{1300, 0, 1100}, 2048, 96 / element, dtype, bf16, false, false, true}));
    add_case({{2300}, 2048, 48 / element, dtype, bf16, true});
    add_case(slow({{1300, 0, 1100}, 2048, 192 / element, dtype, bf16, true, true}));
  }
  // Packed: no whole panel, one of 16 columns, several blocks of steps, tiles of all heights.
  for (const int64_t R : {0, 1, 8, 65}) add_case(packed({{R}, 48, 260, DType::kI8}));
  add_case(packed({{9}, 16, 4, DType::kI8, f32}));
  add_case(packed({{30}, 96, 2600, DType::kI8, f32, false, true, true, true}));
  add_case(packed({{8}, 208, 1200, DType::kI8, bf16, true, false, true}));
  add_case(packed({{1, 7, 8, 0, 64, 65}, 192, 256, DType::kI8, bf16, true, true}));
  add_case(packed({{300, 0, 2, 530}, 160, 208, DType::kI8, bf16, false, false, true}));
  // Weights from memory (more than a cache holds), and from cache.
  for (const DType dtype : {DType::kI8, bf16})
    for (const auto& [R, N, K] : {std::array<int64_t, 3>{1, 65536, 4096},
                                  {1, 4096, 1024},
                                  {8, 65536, 4096},
                                  {64, 4096, 1024},
                                  {256, 4096, 1024},
                                  {256, 1344, 5120},
                                  {2048, 1344, 5120}}) {
      const Dims d{{R}, N, K, dtype, bf16, false, false, false, false, false, true};
      add_case(d);
      if (dtype == DType::kI8) add_case(packed(d));
    }
  // The rows of 300 tokens, over all of Pangu's experts or on eight: tiles are chosen by the mean.
  std::vector<int64_t> even(64, 38), skewed(64);
  for (size_t g = 0; g < 32; ++g) even[2 * g] = 37;
  for (size_t g = 1; g < 64; g += 8) skewed[g] = 300;
  for (const std::vector<int64_t>& rows : {even, skewed})
    add_case({rows, 2688, 5120, DType::kI8, bf16, true, true, false, false, false, true, true});
});

}  // namespace
}  // namespace moge::test
