#include "ops/silu_mul.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::SiluMulBwd;
using ops::SiluMulFwd;

SiluMulFwd make_fwd(Inputs& in, int64_t R, int64_t F, bool weighted) {
  return {.h = in.output({R, F}),
          .gate_up = in.normal({R, 2 * F}, 3),
          .row_weight = weighted ? in.uniform({R}, -1, 1) : Tensor{}};
}

/// In place (dgate_up is gate_up) unless timed: repeated, that would soon compute with subnormals.
SiluMulBwd make_bwd(Inputs& in, int64_t R, int64_t F, bool weighted, bool perf) {
  const Tensor gate_up = in.normal({R, 2 * F}, 3);
  return {.dgate_up = perf ? in.output({R, 2 * F}) : gate_up,
          .drow_weight = weighted ? in.output({R}) : Tensor{},
          .dh = in.normal({R, F}),
          .gate_up = gate_up,
          .row_weight = weighted ? in.uniform({R}, -1, 1) : Tensor{}};
}

const Cases cases([] {
  struct Dims {
    int64_t R, F;
    bool weighted, perf;
  };
  for (const auto& [R, F, weighted, perf] : {Dims{1, 1, true, false},
                                             {7, 15, true, false},
                                             {8, 16, false, false},
                                             {65, 63, true, false},
                                             {1000, 65, true, false},
                                             {0, 8, true, false},
                                             {24576, 128, true, true},
                                             {1, 1344, true, true},
                                             {4096, 1344, true, true}}) {
    const std::string params = str("R=", R, " F=", F, weighted ? " weighted" : "");
    const double bytes = 4.0 * static_cast<double>(R * F);
    // exp within 2 ulp of the reference's, then some ten products and sums.
    const double roundings = 16;
    add<SiluMulFwd>(ops::silu_mul_fwd_table(),
                    {.params = params,
                     .make = [=](Inputs& in) { return make_fwd(in, R, F, weighted); },
                     .outputs = {{"h", &SiluMulFwd::h, roundings}},
                     .perf = perf,
                     .bytes = 3 * bytes});
    add<SiluMulBwd>(ops::silu_mul_bwd_table(),
                    {.params = params,
                     .make = [=](Inputs& in) { return make_bwd(in, R, F, weighted, perf); },
                     .outputs = {{"dgate_up", &SiluMulBwd::dgate_up, roundings},
                                 {"drow_weight", &SiluMulBwd::drow_weight,
                                  roundings + std::sqrt(static_cast<double>(F))}},
                     .perf = perf,
                     .bytes = 5 * bytes});
  }
  add_grad<SiluMulFwd, SiluMulBwd>(ops::silu_mul_fwd_table(), ops::silu_mul_bwd_table(),
                                   {.params = "R=5 F=24",
                                    .make = [](Inputs& in) { return make_fwd(in, 5, 24, true); },
                                    .outputs = {{&SiluMulFwd::h, &SiluMulBwd::dh}},
                                    .bind =
                                        [](const SiluMulFwd& f, Inputs& in) {
                                          return SiluMulBwd{.dgate_up = in.output(f.gate_up.shape),
                                                            .drow_weight = in.output(f.row_weight.shape),
                                                            .dh = {},
                                                            .gate_up = f.gate_up,
                                                            .row_weight = f.row_weight};
                                        },
                                    .inputs = {{&SiluMulFwd::gate_up, &SiluMulBwd::dgate_up},
                                               {&SiluMulFwd::row_weight, &SiluMulBwd::drow_weight}}});
});

}  // namespace
}  // namespace moge::test
