#include "ops/group_router.h"

#include <limits>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::GroupRouterBwd;
using ops::GroupRouterFwd;

struct Dims {
  int64_t T, E, K;
  int G;
  bool scaled, renormalize;
  std::string str() const {
    return moge::str("T=", T, " E=", E, " K=", K, " G=", G, scaled ? " scaled" : "",
                     renormalize ? " renormalized" : "");
  }
};

GroupRouterFwd make_fwd(Inputs& in, const Dims& d, const Tensor& logits) {
  return {.topk_ids = in.output({d.T, d.K}, DType::kI32),
          .topk_weights = in.output({d.T, d.K}),
          .probs = in.output({d.T, d.E}),
          .lse = in.output({d.T}),
          .logits = logits,
          .router_scale = d.scaled ? in.uniform({d.E}, 0.5F, 2) : Tensor{},
          .num_groups = d.G,
          .renormalize = d.renormalize};
}

/// Logits out of few values: most rows have ties.
Tensor tied_logits(Inputs& in, const Dims& d) {
  const Tensor levels = in.ints({d.T, d.E}, -1, 2);
  const Tensor logits = in.zeros({d.T, d.E});
  for (int64_t i = 0; i < logits.numel(); ++i) {
    const int32_t level = elements<int32_t>(levels)[i];
    elements<float>(logits)[i] = level == 0 && i % 2 ? -0.0F : static_cast<float>(level);
  }
  return logits;
}

/// A third NaN, a third -inf, a third numbers; the last row is all NaN.
Tensor broken_logits(Inputs& in, const Dims& d) {
  const Tensor kinds = in.ints({d.T, d.E}, 0, 3);
  const Tensor logits = in.normal({d.T, d.E});
  for (int64_t i = 0; i < logits.numel(); ++i) {
    const int32_t kind = i / d.E == d.T - 1 ? 0 : elements<int32_t>(kinds)[i];
    if (kind == 0) elements<float>(logits)[i] = std::numeric_limits<float>::quiet_NaN();
    if (kind == 1) elements<float>(logits)[i] = -std::numeric_limits<float>::infinity();
  }
  return logits;
}

/// Steps of 0.3 in random order: finite differences don't change the selection.
Tensor spaced_logits(Inputs& in, const Dims& d) {
  const Tensor logits = in.zeros({d.T, d.E});
  Rng rng = in.rng();
  for (int64_t t = 0; t < d.T; ++t) {
    const auto row = elements<float>(logits[t]);
    for (int64_t e = 0; e < d.E; ++e) row[e] = 0.3F * static_cast<float>(e - d.E / 2);
    for (int64_t e = d.E - 1; e > 0; --e)
      std::swap(row[e], row[rng.next_below(static_cast<uint32_t>(e + 1))]);
  }
  return logits;
}

void add_fwd(const Dims& d, const char* what, Tensor (*logits)(Inputs&, const Dims&), bool perf = false) {
  // exp(x - max): the rounded difference, |x - max| < 16 here, and exp itself; then the sum.
  const double roundings = 24 + std::sqrt(static_cast<double>(d.E));
  add<GroupRouterFwd>(ops::group_router_fwd_table(),
                      {.params = d.str() + what,
                       .make = [=](Inputs& in) { return make_fwd(in, d, logits(in, d)); },
                       .outputs = {{"topk_ids", &GroupRouterFwd::topk_ids},
                                   {"topk_weights", &GroupRouterFwd::topk_weights, 2 * roundings},
                                   {"probs", &GroupRouterFwd::probs, roundings},
                                   {"lse", &GroupRouterFwd::lse, roundings}},
                       .perf = perf,
                       .bytes = 4.0 * static_cast<double>(d.T * (2 * d.E + 2 * d.K + 1))});
}

void add_bwd(const Dims& d, bool extra_gradients, bool perf = false) {
  add<GroupRouterBwd>(
      ops::group_router_bwd_table(),
      {.params = d.str() + (extra_gradients ? " dprobs dlse" : ""),
       .make =
           [=](Inputs& in) {
             const GroupRouterFwd f = make_fwd(in, d, in.normal({d.T, d.E}, 2));
             Bench(1).run(ops::group_router_fwd_table(), reference(ops::group_router_fwd_table()), f);
             return GroupRouterBwd{.dlogits = in.output({d.T, d.E}),
                                   .drouter_scale = d.scaled ? in.zeros({d.E}) : Tensor{},
                                   .dtopk_weights = in.normal({d.T, d.K}),
                                   .dprobs = extra_gradients ? in.normal({d.T, d.E}) : Tensor{},
                                   .dlse = extra_gradients ? in.normal({d.T}) : Tensor{},
                                   .topk_ids = f.topk_ids,
                                   .probs = f.probs,
                                   .router_scale = f.router_scale,
                                   .renormalize = d.renormalize};
           },
       .outputs = {{"dlogits", &GroupRouterBwd::dlogits, 16 + std::sqrt(static_cast<double>(d.E))},
                   {"drouter_scale", &GroupRouterBwd::drouter_scale, 0}},
       .perf = perf,
       .bytes = 4.0 * static_cast<double>(d.T * ((extra_gradients ? 3 : 2) * d.E + 2 * d.K))});
}

void add_router_grad(const Dims& d) {
  add_grad<GroupRouterFwd, GroupRouterBwd>(
      ops::group_router_fwd_table(), ops::group_router_bwd_table(),
      {.params = d.str(),
       .make = [=](Inputs& in) { return make_fwd(in, d, spaced_logits(in, d)); },
       .outputs = {{&GroupRouterFwd::topk_weights, &GroupRouterBwd::dtopk_weights},
                   {&GroupRouterFwd::probs, &GroupRouterBwd::dprobs},
                   {&GroupRouterFwd::lse, &GroupRouterBwd::dlse}},
       .bind =
           [](const GroupRouterFwd& f, Inputs& in) {
             return GroupRouterBwd{
                 .dlogits = in.output(f.logits.shape),
                 .drouter_scale = f.router_scale ? in.zeros(f.router_scale.shape) : Tensor{},
                 .dtopk_weights = {},
                 .dprobs = {},
                 .dlse = {},
                 .topk_ids = f.topk_ids,
                 .probs = f.probs,
                 .router_scale = f.router_scale,
                 .renormalize = f.renormalize};
           },
       .inputs = {{&GroupRouterFwd::logits, &GroupRouterBwd::dlogits},
                  {&GroupRouterFwd::router_scale, &GroupRouterBwd::drouter_scale}}});
}

const Cases cases([] {
  const auto normal_logits = [](Inputs& in, const Dims& d) { return in.normal({d.T, d.E}, 2); };
  for (const Dims& d : {Dims{1, 1, 1, 1, false, false},
                        {7, 16, 4, 4, true, false},
                        {64, 64, 8, 8, true, false},
                        {65, 64, 16, 4, false, true},
                        {63, 12, 9, 3, true, true},
                        {300, 128, 8, 1, false, true},
                        {5, 6, 6, 3, false, false},
                        {0, 16, 4, 4, false, false}}) {
    add_fwd(d, "", normal_logits);
    add_fwd(d, " ties", tied_logits);
    add_bwd(d, false);
    add_bwd(d, true);
  }
  for (const Dims& d : {Dims{40, 16, 4, 4, false, false}, {33, 12, 6, 2, false, false}})
    add_fwd(d, " broken", broken_logits);
  for (const Dims& d :
       {Dims{6, 16, 4, 4, true, false}, {6, 16, 8, 4, true, true}, {6, 12, 3, 1, false, true}})
    add_router_grad(d);
  for (const Dims& d : {Dims{4096, 16, 4, 4, true, false},
                        {1, 64, 8, 8, true, false},
                        {4096, 64, 8, 8, true, false},
                        {4096, 128, 8, 1, false, true}}) {
    add_fwd(d, "", normal_logits, true);
    add_bwd(d, true, true);
  }
});

}  // namespace
}  // namespace moge::test
