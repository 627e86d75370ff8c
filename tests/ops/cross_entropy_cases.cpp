#include "ops/cross_entropy.h"

#include <algorithm>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::CrossEntropy;

struct Dims {
  int64_t T, D, V;
  DType dtype;
  bool grad;
  bool perf = false;
  std::string params() const {
    return str("T=", T, " D=", D, " V=", V, " ", name_of(dtype), grad ? " grad" : "");
  }
};

CrossEntropy make(Inputs& in, const Dims& d) {
  const Tensor targets = in.ints({d.T}, -1, static_cast<int32_t>(d.V));
  for (int64_t t = 0; t < d.T; t += 5) targets.ptr<int32_t>()[t] = -1;
  return {.loss = in.output({d.T}),
          .dx = d.grad ? in.output({d.T, d.D}) : Tensor{},
          .dw = d.grad ? in.normal({d.V, d.D}, 1e-3F) : Tensor{},
          .x = in.normal({d.T, d.D}),
          .w = in.normal({d.V, d.D}, 1 / std::sqrt(static_cast<float>(d.D)), d.dtype),
          .targets = targets,
          .grad_scale = 1.0F / static_cast<float>(std::max<int64_t>(1, d.T))};
}

const Cases cases([] {
  const Dims small{9, 12, 37, DType::kF32, false};
  add_grad<CrossEntropy, CrossEntropy>(
      ops::cross_entropy_table(), ops::cross_entropy_table(),
      {.params = small.params(),
       .make = [=](Inputs& in) { return make(in, small); },
       .outputs = {{&CrossEntropy::loss, nullptr}},
       .bind =
           [](const CrossEntropy& f, Inputs& in) {
             CrossEntropy b = f;
             b.loss = in.output(f.loss.shape);
             b.dx = in.output(f.x.shape);
             b.dw = in.zeros(f.w.shape);
             b.grad_scale = 0.25;
             return b;
           },
       .inputs = {{&CrossEntropy::x, &CrossEntropy::dx}, {&CrossEntropy::w, &CrossEntropy::dw}},
       .output_grad = 0.25});
  for (const Dims& d : {Dims{1, 8, 1, DType::kF32, true},
                        {7, 20, 33, DType::kF32, true},
                        {65, 64, 1001, DType::kF32, true},
                        {65, 64, 1001, DType::kBF16, true},
                        {33, 48, 517, DType::kBF16, false},
                        {0, 8, 16, DType::kF32, true},
                        {1030, 4, 9, DType::kF32, true},      // several blocks of tokens
                        {70, 4, 70'001, DType::kF32, false},  // the vocabulary in chunks
                        {4096, 256, 8192, DType::kF32, true, true},
                        {4096, 256, 8192, DType::kBF16, true, true},
                        {512, 1024, 32000, DType::kBF16, true, true},
                        {256, 1024, 153376, DType::kBF16, true, true},
                        {256, 1024, 153376, DType::kBF16, false, true}}) {
    // A logit's error walks over its D products and is a probability's relative error; dx and dw add a sum
    // over V and T. With bf16 weights dlogits are rounded to bf16 as well: a tie may fall either way.
    const double logit = 4 * std::sqrt(static_cast<double>(d.D)) + 16;
    const double eps = d.dtype == DType::kBF16 ? 0x1p-9 : 0x1p-24;
    const double sums = d.dtype == DType::kBF16 ? 2 : logit + 4 * std::sqrt(static_cast<double>(d.V + d.T));
    add<CrossEntropy>(ops::cross_entropy_table(), {.params = d.params(),
                                                   .make = [=](Inputs& in) { return make(in, d); },
                                                   .outputs = {{"loss", &CrossEntropy::loss, logit},
                                                               {"dx", &CrossEntropy::dx, sums, eps},
                                                               {"dw", &CrossEntropy::dw, sums, eps}},
                                                   .perf = d.perf,
                                                   .flops = (d.grad ? 6.0 : 2.0) * static_cast<double>(d.T) *
                                                            static_cast<double>(d.D * d.V)});
  }
});

}  // namespace
}  // namespace moge::test
