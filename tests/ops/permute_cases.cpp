#include "ops/permute.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::PermuteBwd;
using ops::PermuteFwd;

struct Dims {
  int64_t T, E, K, S;
  int32_t first, last;  ///< experts that are chosen: first .. last-1
  bool perf;
};

PermuteFwd make_fwd(Inputs& in, const Dims& d) {
  const int64_t R = d.T * (d.K + d.S);
  return {.offsets = in.output({d.E + d.S + 1}, DType::kI32),
          .row_token = in.output({R}, DType::kI32),
          .row_weight = in.output({R}),
          .slot_row = in.output({d.T, d.K + d.S}, DType::kI32),
          .topk_ids = in.ints({d.T, d.K}, d.first, d.last),
          .topk_weights = in.normal({d.T, d.K})};
}

PermuteBwd make_bwd(const PermuteFwd& f, Inputs& in) {
  Bench(1).run(ops::permute_fwd_table(), reference(ops::permute_fwd_table()), f);
  return {.dtopk_weights = in.output(f.topk_weights.shape),
          .drow_weight = in.normal(f.row_weight.shape),
          .slot_row = f.slot_row};
}

const Cases cases([] {
  for (const Dims& d :
       {Dims{1, 1, 1, 0, 0, 1, false},
        {7, 16, 4, 2, 0, 16, false},
        {65, 8, 2, 1, 3, 4, false},      // all on one expert
        {255, 64, 8, 4, 20, 40, false},  // experts without rows
        {256, 16, 4, 0, 0, 16, false},
        {1025, 16, 4, 2, 0, 16, false},
        {9001, 40, 7, 1, 0, 40, false},  // several tasks of the backward, in fours and one by one
        {300, 0, 0, 3, 0, 1, false},     // dense: shared experts only
        {0, 16, 4, 2, 0, 16, false},
        {4096, 16, 4, 2, 0, 16, true},
        {1, 64, 8, 4, 0, 64, true},
        {32768, 64, 8, 4, 0, 64, true}}) {
    const std::string params =
        str("T=", d.T, " E=", d.E, " K=", d.K, " S=", d.S, " on ", d.first, "..", d.last - 1);
    const double slots = static_cast<double>(d.T * (d.K + d.S));
    add<PermuteFwd>(ops::permute_fwd_table(), {.params = params,
                                               .make = [=](Inputs& in) { return make_fwd(in, d); },
                                               .outputs = {{"offsets", &PermuteFwd::offsets},
                                                           {"row_token", &PermuteFwd::row_token},
                                                           {"row_weight", &PermuteFwd::row_weight},
                                                           {"slot_row", &PermuteFwd::slot_row}},
                                               .perf = d.perf,
                                               .bytes = 20 * slots});
    add<PermuteBwd>(ops::permute_bwd_table(),
                    {.params = params,
                     .make = [=](Inputs& in) { return make_bwd(make_fwd(in, d), in); },
                     .outputs = {{"dtopk_weights", &PermuteBwd::dtopk_weights}},
                     .perf = d.perf,
                     .bytes = 12.0 * static_cast<double>(d.T * d.K)});
  }
  const Dims d{.T = 9, .E = 5, .K = 3, .S = 2, .first = 0, .last = 5, .perf = false};
  add_grad<PermuteFwd, PermuteBwd>(ops::permute_fwd_table(), ops::permute_bwd_table(),
                                   {.params = "T=9 E=5 K=3 S=2",
                                    .make = [=](Inputs& in) { return make_fwd(in, d); },
                                    .outputs = {{&PermuteFwd::row_weight, &PermuteBwd::drow_weight}},
                                    .bind = make_bwd,
                                    .inputs = {{&PermuteFwd::topk_weights, &PermuteBwd::dtopk_weights}}});
});

}  // namespace
}  // namespace moge::test
