#include "ops/rope_kv_write.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::RopeKvWrite;

struct Dims {
  int64_t T, H, KV, Dh, PS;
  DType dtype;
  bool norms = false;
  bool perf = false;
  bool gpu_only = false;
  bool idle = false;
};

/// Tokens land in distinct slots, scattered over pages that hold something else before; with `idle` every
/// third in none.
RopeKvWrite make(Inputs& in, const Dims& d) {
  const int64_t P = d.T / d.PS + 3;
  std::vector<int32_t> slots(d.T);
  std::vector<int32_t> order(P * d.PS);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  Rng rng = in.rng();
  for (int64_t t = 0; t < d.T; ++t) {
    std::swap(order[t], order[t + rng.next_below(static_cast<uint32_t>(P * d.PS - t))]);
    slots[t] = d.idle && t % 3 == 1 ? -1 : order[t];
  }
  const bool quantised = size_of(d.dtype) == 1;
  const auto scales = [&] { return quantised ? in.normal({P, d.KV, d.PS}) : Tensor{}; };
  const Tensor angles = in.uniform({d.T, d.Dh / 2}, -4, 4);
  const Tensor cos_sin = in.zeros({d.T, d.Dh});
  for (int64_t t = 0; t < d.T; ++t)
    for (int64_t i = 0; i < d.Dh / 2; ++i) {
      const float angle = angles.ptr<float>()[t * d.Dh / 2 + i];
      cos_sin.ptr<float>()[t * d.Dh + i] = std::cos(angle);
      cos_sin.ptr<float>()[t * d.Dh + d.Dh / 2 + i] = std::sin(angle);
    }
  return {.q = in.output({d.T, d.H, d.Dh}, DType::kBF16),
          .k_pages = in.normal({P, d.KV, d.PS, d.Dh}, 1, d.dtype),
          .v_pages = in.normal({P, d.KV, d.PS, d.Dh}, 1, d.dtype),
          .k_scales = scales(),
          .v_scales = scales(),
          .qkv = in.normal({d.T, d.H + 2 * d.KV, d.Dh}, 1, DType::kBF16),
          .q_norm = d.norms ? in.uniform({d.Dh}, 0.5F, 2) : Tensor{},
          .k_norm = d.norms ? in.uniform({d.Dh}, 0.5F, 2) : Tensor{},
          .cos_sin = cos_sin,
          .slots = in.values(slots)};
}

const Cases cases([] {
  const DType bf16 = DType::kBF16, f16 = DType::kF16, i8 = DType::kI8, fp8 = DType::kFP8E4M3;
  for (const Dims& d : {Dims{1, 64, 8, 128, 16, fp8},
                        {1, 1, 1, 2, 1, bf16},
                        {7, 4, 2, 64, 16, i8, true},
                        {8, 8, 1, 128, 64, bf16, true},
                        {63, 40, 8, 128, 16, i8},
                        {64, 16, 8, 128, 64, fp8, true},
                        {65, 4, 4, 80, 16, bf16},
                        {9, 40, 8, 128, 64, f16, true},
                        {17, 4, 2, 64, 16, f16},
                        {0, 4, 2, 64, 16, bf16},
                        {9, 4, 2, 256, 16, i8, true},
                        {9, 4, 2, 256, 64, bf16, true},
                        {9, 4, 2, 160, 16, fp8, true},
                        {33, 5, 1, 160, 64, bf16},
                        {130, 10, 2, 64, 64, i8, true, false, false, true},
                        {70, 8, 4, 128, 64, bf16, false, false, false, true},
                        // from 1024 tokens on two heads a lane, of 16-bit pages
                        {1025, 40, 8, 128, 64, bf16, true, false, true},
                        {1025, 40, 8, 128, 64, bf16, false, false, true},
                        {1025, 40, 8, 128, 64, f16, true, false, true},
                        {1025, 40, 8, 128, 64, f16, false, false, true},
                        {1025, 40, 8, 128, 64, i8, true, false, true},
                        {1027, 5, 2, 64, 16, bf16, true, false, true},  // an odd number of heads
                        {1024, 4, 2, 256, 64, f16, true, false, true},
                        {4096, 5, 1, 128, 64, bf16, true, false, true},
                        {4096, 5, 1, 128, 64, fp8, true, false, true},
                        {1, 40, 8, 128, 64, fp8, false, true},
                        {256, 40, 8, 128, 64, fp8, false, true},
                        {256, 40, 8, 128, 64, bf16, true, true},
                        {4096, 40, 8, 128, 64, i8, false, true}}) {
    // A rotation rounds three times in fp32, QK-norm some six times more: before the rounding to the stored
    // number that is at most the next one, 2^-10 (f16), 2^-7 (bf16) or 2^-3 (fp8) away, or 1.
    const auto units = [](Tensor RopeKvWrite::*pages) {
      return [pages](const RopeKvWrite& a) {
        std::vector<double> u = to_doubles(a.*pages);
        for (double& x : u) {
          if (a.k_pages.dtype == DType::kI8) x = 1;
          if (a.k_pages.dtype == DType::kFP8E4M3) x = std::max(std::abs(x), 0x1p-6) / 8;
          if (a.k_pages.dtype == DType::kBF16) x = std::max(std::abs(x), 0x1p-6) / 128;
          if (a.k_pages.dtype == DType::kF16) x = std::max(std::abs(x), 0x1p-6) / 1024;
        }
        return u;
      };
    };
    const double head = static_cast<double>(d.Dh), heads = static_cast<double>(d.H + 2 * d.KV);
    add<RopeKvWrite>(
        ops::rope_kv_write_table(),
        {.params = str("T=", d.T, " H=", d.H, " KV=", d.KV, " Dh=", d.Dh, " PS=", d.PS, " ", name_of(d.dtype),
                       d.norms ? " norms" : "", d.idle ? " idle" : ""),
         .make = [=](Inputs& in) { return make(in, d); },
         .outputs = {{"q", &RopeKvWrite::q, 2, 0x1p-8},
                     {"k_pages", &RopeKvWrite::k_pages, 1, 1, units(&RopeKvWrite::k_pages)},
                     {"v_pages", &RopeKvWrite::v_pages},  // v is only divided by its scale
                     {"k_scales", &RopeKvWrite::k_scales, 16},
                     {"v_scales", &RopeKvWrite::v_scales}},
         .perf = d.perf,
         .gpu_only = d.gpu_only,
         .slow_races = d.T * d.H > 30'000,
         .bytes =
             static_cast<double>(d.T) *
             (2 * head * (heads + static_cast<double>(d.H)) + 4 * head +
              2 * static_cast<double>(d.KV * (d.Dh * size_of(d.dtype) + (size_of(d.dtype) == 2 ? 0 : 4))))});
  }
});

}  // namespace
}  // namespace moge::test
