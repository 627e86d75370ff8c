#include "ops/quantize.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::QuantizeRows;

struct Dims {
  int64_t R, K;
  DType from, to;
  bool perf = false;
  bool gpu_only = false;
};

/// Rows of very different size, one of zeros.
QuantizeRows make(Inputs& in, const Dims& d) {
  const Tensor x = in.normal({d.R, d.K}, 1, d.from);
  if (!d.perf) {
    const std::vector<double> values = to_doubles(x);
    for (int64_t i = 0; i < x.numel(); ++i)
      set_element(x, i, i / d.K == 3 ? 0 : values[i] * std::exp2(static_cast<double>(i / d.K % 40) - 20));
  }
  return {.q = in.output({d.R, d.K}, d.to), .scale = in.output({d.R}), .x = x};
}

/// In row i the bf16 1 + i / 128, every positive one below it, down to 2^-23, and zeros: but for powers of
/// two all quotients of a row of bf16s.
QuantizeRows make_quotients(Inputs& in, DType to) {
  constexpr int64_t kMantissas = 128, kPowers = 24, kColumns = 8 + kPowers * kMantissas;
  const Tensor x = in.normal({kMantissas, kColumns}, 1, DType::kBF16);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const int64_t row = i / kColumns, v = i % kColumns - 8;
    const auto of = [](int64_t mantissa) { return 1 + static_cast<double>(mantissa) / kMantissas; };
    const double smaller = v < 0 ? 0 : std::ldexp(of(v % kMantissas), static_cast<int>(-(v / kMantissas)));
    set_element(x, i, i % kColumns == 0 ? of(row) : smaller < of(row) ? smaller : 0);
  }
  return {.q = in.output({kMantissas, kColumns}, to), .scale = in.output({kMantissas}), .x = x};
}

const Cases cases([] {
  const std::vector<Output<QuantizeRows>> outputs{{"q", &QuantizeRows::q}, {"scale", &QuantizeRows::scale}};
  for (const DType to : {DType::kI8, DType::kFP8E4M3}) {
    add<QuantizeRows>(ops::quantize_rows_table(), {.params = str("all quotients of bf16s to ", name_of(to)),
                                                   .make = [=](Inputs& in) { return make_quotients(in, to); },
                                                   .outputs = outputs});
    for (const Dims& d : {Dims{1, 1, DType::kF32, to},
                          {7, 5120, DType::kF32, to},
                          {8, 1344, DType::kBF16, to},
                          {63, 24, DType::kBF16, to},
                          {64, 37, DType::kF32, to},
                          {65, 2560, DType::kBF16, to},
                          {0, 64, DType::kBF16, to},
                          {200, 2568, DType::kBF16, to},
                          {1, 5120, DType::kBF16, to},
                          {64, 2560, DType::kF32, to},
                          // many rows, or wide ones: a block has several vectors a thread
                          {3, 27'648, DType::kBF16, to},
                          {3, 27'648, DType::kF32, to},
                          {1030, 5120, DType::kBF16, to, false, true},
                          {1030, 2568, DType::kF32, to, false, true},
                          {4096, 1344, DType::kBF16, to, false, true},
                          {4096, 2568, DType::kBF16, to, false, true},
                          {1, 5120, DType::kBF16, to, true},
                          {12288, 1344, DType::kBF16, to, true},
                          {256, 5120, DType::kBF16, to, true},
                          {4096, 5120, DType::kBF16, to, true},
                          {4096, 5120, DType::kF32, to, true}})
      // The largest element, one division a row and one an element, each rounded once: the bits are defined.
      add<QuantizeRows>(ops::quantize_rows_table(),
                        {.params = str("R=", d.R, " K=", d.K, " ", name_of(d.from), " to ", name_of(d.to)),
                         .make = [=](Inputs& in) { return make(in, d); },
                         .outputs = outputs,
                         .perf = d.perf,
                         .gpu_only = d.gpu_only,
                         .slow_races = d.R > 1000,
                         .bytes = static_cast<double>(d.R * (d.K * (size_of(d.from) + 1) + 4))});
  }
});

}  // namespace
}  // namespace moge::test
