#include "ops/rmsnorm.h"

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::RmsnormBwd;
using ops::RmsnormFwd;

Shape rows(int64_t T, int64_t H, int64_t D) {
  return H ? Shape{T, H, D} : Shape{T, D};
}
Shape row_stats(int64_t T, int64_t H) {
  return H ? Shape{T, H} : Shape{T};
}

RmsnormFwd make_fwd(Inputs& in, int64_t T, int64_t H, int64_t D) {
  return {.y = in.output(rows(T, H, D)),
          .rstd = in.output(row_stats(T, H)),
          .x = in.normal(rows(T, H, D)),
          .weight = in.normal({D}),
          .eps = 1e-5F};
}

const Cases cases([] {
  struct Dims {
    int64_t T, H, D;  // H = 0: no heads
    bool perf;
  };
  for (const auto& [T, H, D, perf] : {Dims{1, 0, 1, false},
                                      {7, 0, 5, false},
                                      {64, 0, 256, false},
                                      {65, 3, 64, false},
                                      {0, 0, 8, false},
                                      {300, 0, 100, false},
                                      {4096, 0, 256, true},
                                      {4096, 4, 64, true},
                                      {2048, 0, 5120, true}}) {
    const std::string params = str("T=", T, " H=", H, " D=", D);
    const double bytes = 4.0 * static_cast<double>(T * std::max<int64_t>(H, 1) * D);
    // One rounding per product, one per partial sum of a vector's lanes, a few in rsqrt and scaling.
    const double sum_roundings = std::sqrt(static_cast<double>(D)) + 8;
    add<RmsnormFwd>(ops::rmsnorm_fwd_table(), {.params = params,
                                               .make = [=](Inputs& in) { return make_fwd(in, T, H, D); },
                                               .outputs = {{"y", &RmsnormFwd::y, sum_roundings},
                                                           {"rstd", &RmsnormFwd::rstd, sum_roundings}},
                                               .perf = perf,
                                               .bytes = 2 * bytes});
    add<RmsnormBwd>(ops::rmsnorm_bwd_table(),
                    {.params = params,
                     .make =
                         [=](Inputs& in) {
                           return RmsnormBwd{.dx = in.output(rows(T, H, D)),
                                             .dweight = in.zeros({D}),
                                             .dy = in.normal(rows(T, H, D)),
                                             .x = in.normal(rows(T, H, D)),
                                             .weight = in.normal({D}),
                                             .rstd = in.uniform(row_stats(T, H), 0.5F, 1.5F),
                                             .add = in.normal(rows(T, H, D))};
                         },
                     .outputs = {{"dx", &RmsnormBwd::dx, sum_roundings},
                                 {"dweight", &RmsnormBwd::dweight, static_cast<double>(T) + 8}},
                     .perf = perf,
                     .bytes = 4 * bytes});
  }
  add_grad<RmsnormFwd, RmsnormBwd>(
      ops::rmsnorm_fwd_table(), ops::rmsnorm_bwd_table(),
      {.params = "T=5 H=3 D=24",
       .make =
           [](Inputs& in) {
             // The last 3 heads of 5, as QK-norm's k: x, y and rstd are slices.
             RmsnormFwd f = make_fwd(in, 5, 5, 24);
             for (Tensor* t : {&f.x, &f.y, &f.rstd}) *t = t->slice(1, 2, 5);
             return f;
           },
       .outputs = {{&RmsnormFwd::y, &RmsnormBwd::dy}},
       .bind =
           [](const RmsnormFwd& f, Inputs& in) {
             return RmsnormBwd{.dx = in.output(f.x.shape),
                               .dweight = in.zeros(f.weight.shape),
                               .dy = {},
                               .x = f.x,
                               .weight = f.weight,
                               .rstd = f.rstd,
                               .add = {}};
           },
       .inputs = {{&RmsnormFwd::x, &RmsnormBwd::dx}, {&RmsnormFwd::weight, &RmsnormBwd::dweight}}});
});

}  // namespace
}  // namespace moge::test
