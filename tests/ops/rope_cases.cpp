#include "ops/rope.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::Rope;
using ops::RopeTable;

/// The query heads of a fused [T, H + 2 KV, Dh] row.
Rope make_rope(Inputs& in, int64_t T, int64_t H, int64_t KV, int64_t Dh, bool inverse) {
  return {.x = in.normal({T, H + 2 * KV, Dh}).slice(1, 0, H),
          .cos_sin = in.uniform({T, Dh}, -1, 1),
          .inverse = inverse};
}

const Cases cases([] {
  struct Dims {
    int64_t T, H, KV, Dh;
    bool perf;
  };
  for (const auto& [T, H, KV, Dh, perf] : {Dims{1, 1, 0, 2, false},
                                           {7, 3, 1, 14, false},
                                           {8, 4, 0, 32, false},
                                           {65, 4, 2, 64, false},
                                           {300, 5, 1, 80, false},
                                           {0, 4, 2, 64, false},
                                           {4096, 4, 2, 64, true},
                                           {1, 40, 8, 128, true},
                                           {4096, 40, 8, 128, true}}) {
    const std::string params = str("T=", T, " H=", H, " KV=", KV, " Dh=", Dh);
    for (const bool inverse : {false, true}) {
      if (perf && inverse) continue;
      add<Rope>(ops::rope_op_table(),
                {.params = params + (inverse ? " inverse" : ""),
                 .make = [=](Inputs& in) { return make_rope(in, T, H, KV, Dh, inverse); },
                 .outputs = {{"x", &Rope::x, 6}},
                 .perf = perf,
                 .bytes = 4.0 * static_cast<double>(T * Dh * (2 * H + 1))});
    }
    // Absolute errors count: cosines and sines have magnitude 1.
    add<RopeTable>(ops::rope_table_table(),
                   {.params = params,
                    .make =
                        [=](Inputs& in) {
                          return RopeTable{.cos_sin = in.output({T, Dh}),
                                           .positions = in.ints({T}, 0, INT32_MAX >> (T % 16)),
                                           .theta = 500000};
                        },
                    .outputs = {{"cos_sin", &RopeTable::cos_sin, 3, 0x1p-24,
                                 [=](const RopeTable&) { return std::vector<double>(T * Dh, 1.0); }}},
                    .perf = perf,
                    .bytes = 4.0 * static_cast<double>(T * Dh)});
  }
  // Rotating back is the backward: both work in place.
  add_grad<Rope, Rope>(ops::rope_op_table(), ops::rope_op_table(),
                       {.params = "T=5 H=3 KV=1 Dh=16",
                        .make = [](Inputs& in) { return make_rope(in, 5, 3, 1, 16, false); },
                        .outputs = {{&Rope::x, &Rope::x}},
                        .bind =
                            [](const Rope& f, Inputs& in) {
                              return Rope{.x = in.output(f.x.shape), .cos_sin = f.cos_sin, .inverse = true};
                            },
                        .inputs = {{&Rope::x, &Rope::x}}});
});

}  // namespace
}  // namespace moge::test
