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

/// The loss is a scalar with a gradient in the same op, so it is its own forward: central differences of the
/// reference along random directions of x and w.
std::string gradient(const std::string& name) {
  const OpTable<CrossEntropy>& table = ops::cross_entropy_table();
  Inputs in(kSeed);
  const CrossEntropy a = make(in, {9, 12, 37, DType::kF32, true});
  std::fill_n(a.dw.ptr<float>(), a.dw.numel(), 0.0F);
  Bench bench(2);
  bench.run(table, find_impl(table, name), a);
  CrossEntropy forward = a;
  forward.dx = forward.dw = {};
  const auto loss = [&] {
    bench.run(table, reference(table), forward);
    double sum = 0;
    for (const double l : to_doubles(a.loss)) sum += l;
    return a.grad_scale * sum;
  };
  for (const auto& [x, dx] : {std::pair{a.x, a.dx}, std::pair{a.w, a.dw}}) {
    const Rng rng = in.rng();
    const std::vector<double> x0 = to_doubles(x), g = to_doubles(dx);
    double analytic = 0, norm = 0, side[2];
    for (size_t i = 0; i < g.size(); ++i) {
      analytic += g[i] * rng.normal(i);
      norm += g[i] * g[i];
    }
    const double h = 1e-3;
    for (const int s : {0, 1}) {
      for (size_t i = 0; i < x0.size(); ++i)
        set_element(x, static_cast<int64_t>(i), x0[i] + (s == 0 ? h : -h) * rng.normal(i));
      side[s] = loss();
    }
    for (size_t i = 0; i < x0.size(); ++i) set_element(x, static_cast<int64_t>(i), x0[i]);
    const double numeric = (side[0] - side[1]) / (2 * h), bound = 1e-2 * std::sqrt(norm);
    if (!(std::abs(analytic - numeric) <= bound))
      return str("directional derivative ", analytic, ", finite differences ", numeric, ", bound ", bound);
  }
  return "";
}

const Cases cases([] {
  AnyCase any = erase(ops::cross_entropy_table(), "T=9 D=12 V=37");
  any.grad = gradient;
  any.refusal = [](const std::string&) { return Refusal{}; };
  all_cases().push_back(std::move(any));
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
