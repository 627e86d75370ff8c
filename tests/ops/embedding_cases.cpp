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

/// Ids outside of the vocabulary: refused on the CPU; on a GPU rows of NaN between the others' rows.
std::string outside(const std::string& name) {
  const OpTable<EmbeddingFwd>& table = ops::embedding_fwd_table();
  constexpr int32_t V = 9;
  constexpr int64_t D = 40;
  const std::vector<int32_t> ids{0, -1, V - 1, V, INT32_MIN, 3, INT32_MAX};
  Inputs in(kSeed);
  EmbeddingFwd args = make_fwd(in, std::ssize(ids), V, D, DType::kBF16);
  args.ids = in.values(ids);
  try {
    Bench(2).run(table, find_impl(table, name), args);
    if (!on_gpu(name)) return "accepted";
  } catch (const ShapeError&) {
    return on_gpu(name) ? "refused" : "";
  }
  for (int64_t t = 0; t < std::ssize(ids); ++t) {
    const int64_t id = ids[static_cast<size_t>(t)];
    const bool known = id >= 0 && id < V;
    const Tensor row = args.weight.slice(0, known ? id : 0, known ? id + 1 : 1);
    const std::vector<double> y = to_doubles(args.y.slice(0, t, t + 1)), want = to_doubles(row);
    for (size_t i = 0; i < y.size(); ++i)
      if (known ? y[i] != want[i] : !std::isnan(y[i])) return str("id ", id, " [", i, "]: got ", y[i]);
  }
  return "";
}

const Cases cases([] {
  AnyCase outsiders = erase(ops::embedding_fwd_table(), "ids outside");
  outsiders.test = outside;
  outsiders.refusal = [](const std::string&) { return Refusal(); };
  all_cases().push_back(std::move(outsiders));
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
