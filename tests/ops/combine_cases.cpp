#include "ops/combine.h"

#include <numeric>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::CombineBwd;
using ops::CombineFwd;

struct Dims {
  int64_t T, S, D;
  bool weighted, perf;
};

/// A random bijection of the slots onto R = T * S rows.
Tensor make_slot_row(Inputs& in, int64_t T, int64_t S) {
  const Tensor slot_row = in.ints({T, S}, 0, 1);
  const auto row = elements<int32_t>(slot_row);
  std::iota(row.begin(), row.end(), 0);
  Rng rng = in.rng();
  for (size_t i = row.size(); i > 1; --i)
    std::swap(row[i - 1], row[rng.next_below(static_cast<uint32_t>(i))]);
  return slot_row;
}

/// In place: add is y.
CombineFwd make_fwd(Inputs& in, const Dims& d) {
  const Tensor y = in.normal({d.T, d.D});
  return {.y = y,
          .rows = in.normal({d.T * d.S, d.D}),
          .slot_row = make_slot_row(in, d.T, d.S),
          .weights = d.weighted ? in.normal({d.T, d.S}) : Tensor{},
          .add = y};
}

CombineBwd make_bwd(Inputs& in, const Dims& d) {
  return {.drows = in.output({d.T * d.S, d.D}),
          .dweights = d.weighted ? in.output({d.T, d.S}) : Tensor{},
          .dy = in.normal({d.T, d.D}),
          .rows = d.weighted ? in.normal({d.T * d.S, d.D}) : Tensor{},
          .slot_row = make_slot_row(in, d.T, d.S),
          .weights = d.weighted ? in.normal({d.T, d.S}) : Tensor{}};
}

const Cases cases([] {
  for (const Dims& d : {Dims{1, 1, 1, true, false},
                        {7, 6, 5, true, false},
                        {64, 1, 63, false, false},
                        {65, 12, 129, true, false},
                        {300, 6, 256, false, false},
                        {3, 0, 8, false, false},
                        {0, 6, 8, true, false},
                        {4096, 6, 256, false, true},
                        {4096, 6, 256, true, true},
                        {1, 12, 5120, false, true},
                        {512, 12, 5120, false, true}}) {
    const std::string params = str("T=", d.T, " S=", d.S, " D=", d.D, d.weighted ? " weighted" : "");
    const double row_bytes = 4.0 * static_cast<double>(d.T * d.D);
    const auto slots = static_cast<double>(d.S);
    add<CombineFwd>(ops::combine_fwd_table(), {.params = params,
                                               .make = [=](Inputs& in) { return make_fwd(in, d); },
                                               .outputs = {{"y", &CombineFwd::y, 2 * slots + 2}},
                                               .perf = d.perf,
                                               .bytes = row_bytes * (slots + 2)});
    add<CombineBwd>(
        ops::combine_bwd_table(),
        {.params = params,
         .make = [=](Inputs& in) { return make_bwd(in, d); },
         .outputs = {{"drows", &CombineBwd::drows, 1},
                     {"dweights", &CombineBwd::dweights, std::sqrt(static_cast<double>(d.D)) + 8}},
         .perf = d.perf,
         .bytes = row_bytes * (slots * (d.weighted ? 2 : 1) + 1)});
  }
  add_grad<CombineFwd, CombineBwd>(
      ops::combine_fwd_table(), ops::combine_bwd_table(),
      {.params = "T=5 S=3 D=11",
       .make =
           [](Inputs& in) {
             CombineFwd f = make_fwd(in, {5, 3, 11, true, false});
             f.add = {};
             return f;
           },
       .outputs = {{&CombineFwd::y, &CombineBwd::dy}},
       .bind =
           [](const CombineFwd& f, Inputs& in) {
             return CombineBwd{.drows = in.output(f.rows.shape),
                               .dweights = in.output(f.weights.shape),
                               .dy = {},
                               .rows = f.rows,
                               .slot_row = f.slot_row,
                               .weights = f.weights};
           },
       .inputs = {{&CombineFwd::rows, &CombineBwd::drows}, {&CombineFwd::weights, &CombineBwd::dweights}}});
});

}  // namespace
}  // namespace moge::test
