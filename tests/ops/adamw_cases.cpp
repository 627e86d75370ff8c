#include "ops/adamw.h"

#include <limits>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::AdamW;
using ops::SumSquares;

AdamW make_adamw(Inputs& in, int64_t n, bool bf16) {
  return {.param = in.normal({n}),
          .param_bf16 = bf16 ? in.output({n}, DType::kBF16) : Tensor{},
          .m = in.normal({n}, 0.1F),
          .v = in.uniform({n}, 0, 0.1F),
          .grad = in.normal({n}),
          .lr = 1e-2F,
          .weight_decay = 0.1F,
          .grad_scale = 0.5F,
          .step = 3};
}

/// A step of size 0 over floats of every kind: param_bf16 is param rounded.
AdamW make_rounding(Inputs& in, int64_t n) {
  AdamW a = make_adamw(in, n, true);
  Rng rng = in.rng();
  for (float& p : elements<float>(a.param)) p = std::bit_cast<float>(rng.next_bits());
  const auto param = elements<float>(a.param);
  param[0] = std::bit_cast<float>(0x7f800001U);  // a NaN whose payload rounding would lose
  param[1] = std::bit_cast<float>(0x3f808000U);  // halfway, to even: down
  param[2] = std::bit_cast<float>(0x3f818000U);  // halfway, to even: up
  param[3] = std::numeric_limits<float>::max();
  param[4] = std::numeric_limits<float>::denorm_min();
  a.lr = 0;
  return a;
}

const Cases cases([] {
  for (const auto& [n, perf] : {std::pair<int64_t, bool>{1, false},
                                {63, false},
                                {65, false},
                                {50001, false},
                                {0, false},
                                {10 << 20, true}}) {
    for (const bool bf16 : {false, true}) {
      add<AdamW>(ops::adamw_table(), {.params = str("n=", n, bf16 ? " bf16 copy" : ""),
                                      .make = [=](Inputs& in) { return make_adamw(in, n, bf16); },
                                      .outputs = {{"param", &AdamW::param, 8},
                                                  {"param_bf16", &AdamW::param_bf16, 2, 0x1p-8},
                                                  {"m", &AdamW::m, 3},
                                                  {"v", &AdamW::v, 4}},
                                      .perf = perf,
                                      .bytes = (bf16 ? 30.0 : 28.0) * static_cast<double>(n)});
    }
    add<SumSquares>(
        ops::sum_squares_table(),
        {.params = str("n=", n),
         .make = [=](Inputs& in) { return SumSquares{.sum = in.output({1}), .x = in.normal({n})}; },
         .outputs = {{"sum", &SumSquares::sum, 1}},
         .perf = perf,
         .bytes = 4.0 * static_cast<double>(n)});
  }
  add<AdamW>(ops::adamw_table(), {.params = "rounding",
                                  .make = [](Inputs& in) { return make_rounding(in, 4099); },
                                  .outputs = {{"param", &AdamW::param}, {"param_bf16", &AdamW::param_bf16}}});
});

}  // namespace
}  // namespace moge::test
