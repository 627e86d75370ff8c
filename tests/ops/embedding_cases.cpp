#include "ops/embedding.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::EmbeddingBwd;
using ops::EmbeddingFwd;

EmbeddingFwd make_fwd(Inputs& in, int64_t T, int64_t V, int64_t D, DType dtype) {
  return {.y = in.output({T, D}),
          .weight = in.normal({V, D}, 1, dtype),
          .ids = in.ints({T}, 0, static_cast<int32_t>(V))};
}

const Cases cases([] {
  struct Dims {
    int64_t T, V, D;
    bool perf;
    bool gpu_only = false;
  };
  for (const auto& [T, V, D, perf, gpu_only] : {Dims{1, 1, 1, false},
                                                {7, 3, 5, false},
                                                {65, 1000, 63, false},
                                                {300, 17, 129, false},
                                                {0, 4, 8, false},
                                                {1, 1000, 5120, false},
                                                {7, 1000, 8, false},
                                                {65, 1000, 5120, false},
                                                {4096, 999, 8, false},
                                                {4096, 1000, 5120, false, true},
                                                {4096, 4096, 256, true},
                                                {2048, 153376, 512, true}}) {
    const double row_bytes = static_cast<double>(T * D);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      add<EmbeddingFwd>(ops::embedding_fwd_table(),
                        {.params = str("T=", T, " V=", V, " D=", D, " ", name_of(dtype)),
                         .make = [=](Inputs& in) { return make_fwd(in, T, V, D, dtype); },
                         .outputs = {{"y", &EmbeddingFwd::y}},
                         .perf = perf,
                         .gpu_only = gpu_only,
                         .slow_races = gpu_only,
                         .bytes = row_bytes * static_cast<double>(4 + size_of(dtype))});
    }
    add<EmbeddingBwd>(ops::embedding_bwd_table(), {.params = str("T=", T, " V=", V, " D=", D),
                                                   .make =
                                                       [=](Inputs& in) {
                                                         return EmbeddingBwd{
                                                             .dweight = in.normal({V, D}),
                                                             .dy = in.normal({T, D}),
                                                             .ids = in.ints({T}, 0, static_cast<int32_t>(V))};
                                                       },
                                                   .outputs = {{"dweight", &EmbeddingBwd::dweight}},
                                                   .perf = perf,
                                                   .gpu_only = gpu_only,
                                                   .bytes = row_bytes * 12});
  }
  add_grad<EmbeddingFwd, EmbeddingBwd>(
      ops::embedding_fwd_table(), ops::embedding_bwd_table(),
      {.params = "T=20 V=7 D=9",
       .make = [](Inputs& in) { return make_fwd(in, 20, 7, 9, DType::kF32); },
       .outputs = {{&EmbeddingFwd::y, &EmbeddingBwd::dy}},
       .bind =
           [](const EmbeddingFwd& f, Inputs& in) {
             return EmbeddingBwd{.dweight = in.zeros(f.weight.shape), .dy = {}, .ids = f.ids};
           },
       .inputs = {{&EmbeddingFwd::weight, &EmbeddingBwd::dweight}}});
});

}  // namespace
}  // namespace moge::test
