#include "ops/random_fill.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::RandomFill;

const Cases cases([] {
  struct Kind {
    DType dtype;
    bool of_bf16 = false;
  };
  for (const auto& [dtype, of_bf16] : {Kind{DType::kF32},
                                       {DType::kF32, true},
                                       {DType::kBF16},
                                       {DType::kF16},
                                       {DType::kI8},
                                       {DType::kFP8E4M3}}) {
    for (const int64_t n : {int64_t{1}, int64_t{1000}, int64_t{65'537}, int64_t{0}, int64_t{1} << 26}) {
      // log, root and cosine within some ulp of fp32: the cosine's argument is up to 2 pi, rounded. Eight-bit
      // and bf16 numbers may then be the neighbours.
      const auto units = [](const RandomFill& a) {
        std::vector<double> u = to_doubles(a.x);
        for (double& x : u) {
          x = std::max(std::abs(x), 0x1p-6);
          if (a.x.dtype == DType::kI8) x = 1;
          if (a.x.dtype == DType::kFP8E4M3) x /= 8;
          if (a.x.dtype == DType::kBF16 || a.of_bf16) x /= 128;
          if (a.x.dtype == DType::kF16) x /= 1024;
        }
        return u;
      };
      const bool f32 = dtype == DType::kF32 && !of_bf16;
      add<RandomFill>(ops::random_fill_table(),
                      {.params = str("n=", n, " ", name_of(dtype), of_bf16 ? " of bf16" : ""),
                       .make =
                           [=](Inputs& in) {
                             return RandomFill{in.output({n}, dtype), 0.02F, uint64_t{7} << 33, of_bf16};
                           },
                       .outputs = {f32 ? Output<RandomFill>{"x", &RandomFill::x, 64}
                                       : Output<RandomFill>{"x", &RandomFill::x, 1, 1, units}},
                       .perf = n > 100'000 && !of_bf16,
                       .bytes = static_cast<double>(n * size_of(dtype))});
    }
  }
});

}  // namespace
}  // namespace moge::test
