#include "ops/decode_inputs.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::DecodeInputs;

/// Every fifth sequence is idle; the others' lengths reach from 0 to their last page's last slot.
DecodeInputs make(Inputs& in, int64_t B, int64_t MP, int page_size, bool history) {
  const auto P = static_cast<int32_t>(B * MP);
  const Tensor kv_lens = in.ints({B}, 0, static_cast<int32_t>(MP) * page_size);
  const auto lens = elements<int32_t>(kv_lens);
  for (int64_t b = 0; b < B; ++b) {
    if (b % 5 == 1) lens[b] = -1;
    if (b % 5 == 2) lens[b] = static_cast<int32_t>(MP) * page_size - 1;
    if (b % 5 == 3) lens[b] = 0;
  }
  constexpr int64_t kVocab = 50;
  return {.kv_lens = kv_lens,
          .positions = in.output({B}, DType::kI32),
          .slots = in.output({B}, DType::kI32),
          .steps = history ? in.zeros({B}, DType::kI64) : Tensor(),
          .output_counts = history ? in.ints({B, kVocab}, 0, 5) : Tensor(),
          .tokens = history ? in.ints({B}, 0, kVocab) : Tensor(),
          .block_table = in.ints({B, MP}, 0, P),
          .page_size = page_size};
}

const Cases cases([] {
  struct Dims {
    int64_t B, MP;
    int page_size;
    bool perf = false;
    bool history = false;
  };
  for (const Dims& d : {Dims{1, 1, 1},
                        {7, 3, 16},
                        {65, 17, 64},
                        {1025, 5, 16},
                        {0, 4, 16},
                        {65, 3, 16, false, true},
                        {1, 64, 64, true},
                        {512, 64, 64, true}})
    add<DecodeInputs>(
        ops::decode_inputs_table(),
        {.params = str("B=", d.B, " MP=", d.MP, " PS=", d.page_size, d.history ? " history" : ""),
         .make = [=](Inputs& in) { return make(in, d.B, d.MP, d.page_size, d.history); },
         .outputs = {{"kv_lens", &DecodeInputs::kv_lens},
                     {"positions", &DecodeInputs::positions},
                     {"slots", &DecodeInputs::slots},
                     {"steps", &DecodeInputs::steps},
                     {"output_counts", &DecodeInputs::output_counts}},
         .perf = d.perf,
         .gpu_only = d.perf,  // on the CPU the runs go on from each other and leave the pages
         .bytes = 20.0 * static_cast<double>(d.B)});
});

}  // namespace
}  // namespace moge::test
