#include "ops/residual_norm.h"

#include "ops/harness.h"
#include "ops/quantize.h"

namespace moge::test {
namespace {

using ops::ResidualNorm;

enum class Update { kNone, kDelta, kDeltaKept, kRows, kBoth };

struct Dims {
  int64_t T, D;
  Update update;
  bool normed;
  DType q = DType::kF32;  ///< f32: no q
  bool perf = false;
  int64_t S = 12;
  bool gpu_only = false;

  bool has_delta() const { return update != Update::kNone && update != Update::kRows; }
  bool has_rows() const { return update == Update::kRows || update == Update::kBoth; }
  bool keeps_x() const { return update == Update::kDeltaKept; }
  std::string params() const {
    const char* const updates[] = {"", " delta", " delta, x kept", " rows", " delta, rows"};
    return str("T=", T, " D=", D, updates[static_cast<int>(update)], normed ? " bf16" : "",
               q == DType::kF32 ? "" : str(" ", name_of(q)));
  }
  double bytes() const {
    const int64_t read = (has_rows() ? 2 * S : 0) + (has_delta() ? 2 : 0);
    const int64_t written =
        (update == Update::kNone || keeps_x() ? 0 : 4) + (normed ? 2 : 0) + (q == DType::kF32 ? 0 : 1);
    return static_cast<double>(T * D * (4 + read + written));
  }
};

ResidualNorm make(Inputs& in, const Dims& d) {
  const int64_t R = d.T * d.S;
  return {.x = in.normal({d.T, d.D}, 3),
          .delta = d.has_delta() ? in.normal({d.T, d.D}, 1, DType::kBF16) : Tensor{},
          .rows = d.has_rows() ? in.normal({R, d.D}, 0.5F, DType::kBF16) : Tensor{},
          .slot_row = d.has_rows() ? in.ints({d.T, d.S}, 0, static_cast<int32_t>(R)) : Tensor{},
          .weight = in.uniform({d.D}, 0.5F, 2),
          .normed = d.normed ? in.output({d.T, d.D}, DType::kBF16) : Tensor{},
          .q = d.q != DType::kF32 ? in.output({d.T, d.D}, d.q) : Tensor{},
          .q_scale = d.q != DType::kF32 ? in.output({d.T}) : Tensor{},
          .keep_x = d.keeps_x()};
}

/// A batch in one call against its rows in several.
std::string same_in_parts(const std::string& name, const Dims& d, const std::vector<int64_t>& ends) {
  const OpTable<ResidualNorm>& table = ops::residual_norm_table();
  const Impl<ResidualNorm>& impl = find_impl(table, name);
  Inputs whole_in(kSeed), parts_in(kSeed);
  const ResidualNorm whole = make(whole_in, d), parts = make(parts_in, d);
  Bench bench(2);
  bench.run(table, impl, whole);
  int64_t begin = 0;
  for (const int64_t end : ends) {
    ResidualNorm part = parts;
    for (Tensor ResidualNorm::*t : {&ResidualNorm::x, &ResidualNorm::delta, &ResidualNorm::slot_row,
                                    &ResidualNorm::normed, &ResidualNorm::q, &ResidualNorm::q_scale})
      if (part.*t) part.*t = (part.*t).slice(0, begin, end);
    bench.run(table, impl, part);
    begin = end;
  }
  for (Tensor ResidualNorm::*t :
       {&ResidualNorm::x, &ResidualNorm::normed, &ResidualNorm::q, &ResidualNorm::q_scale}) {
    const std::string why = parts.*t ? same_bits("a tensor", parts.*t, whole.*t) : "";
    if (!why.empty()) return why;
  }
  return "";
}

/// Delta and rows added by one call, after one that kept x, against a call for each.
std::string same_deferred(const std::string& name, int64_t T, int64_t D) {
  const OpTable<ResidualNorm>& table = ops::residual_norm_table();
  const Impl<ResidualNorm>& impl = find_impl(table, name);
  const Dims both{T, D, Update::kBoth, true};
  Inputs deferred_in(kSeed), direct_in(kSeed);
  Bench bench(2);
  ResidualNorm deferred = make(deferred_in, both), direct = make(direct_in, both);
  const Tensor first_of_deferred = deferred_in.output({T, D}, DType::kBF16);
  const Tensor first_of_direct = direct_in.output({T, D}, DType::kBF16);
  ResidualNorm first = deferred;
  first.rows = first.slot_row = {};
  first.normed = first_of_deferred;
  first.keep_x = true;
  bench.run(table, impl, first);
  bench.run(table, impl, deferred);
  first = direct;
  first.rows = first.slot_row = {};
  first.normed = first_of_direct;
  bench.run(table, impl, first);
  direct.delta = {};
  bench.run(table, impl, direct);
  for (const auto& [a, b] : {std::pair{first_of_deferred, first_of_direct},
                             {deferred.x, direct.x},
                             {deferred.normed, direct.normed}}) {
    const std::string why = same_bits("a tensor", a, b);
    if (!why.empty()) return why;
  }
  return "";
}

const Cases cases([] {
  const DType none = DType::kF32, i8 = DType::kI8, fp8 = DType::kFP8E4M3;
  for (const Dims& d : {Dims{1, 5120, Update::kRows, true, fp8},
                        {1, 8, Update::kDelta, true},
                        {7, 1024, Update::kNone, true},
                        {8, 5120, Update::kDelta, false, i8},
                        {63, 2560, Update::kRows, false, fp8},
                        {64, 40, Update::kRows, true, i8},
                        {65, 1536, Update::kDelta, true, fp8},
                        {9, 5120, Update::kDeltaKept, true, i8},
                        {140, 5120, Update::kDeltaKept, true, i8},
                        {140, 5120, Update::kBoth, false, i8},
                        {1, 5120, Update::kBoth, true, fp8},
                        {3, 33, Update::kDelta, true, i8},  // no width that vectors divide
                        {5, 8192, Update::kRows, true, i8},
                        // more rows of this width than have a cluster each
                        {140, 8192, Update::kRows, true, i8, false, 12, true},
                        {140, 8192, Update::kDelta, true, fp8, false, 12, true},
                        {140, 8192, Update::kBoth, false, i8, false, 12, true},
                        {140, 8192, Update::kDeltaKept, true, i8, false, 12, true},
                        {4096, 1024, Update::kBoth, true, i8, false, 9, true},
                        {4096, 5120, Update::kDelta, false, fp8, false, 9, true},
                        {0, 64, Update::kDelta, true},
                        {1, 5120, Update::kRows, true, fp8, true},
                        {1, 5120, Update::kDelta, false, fp8, true},
                        {256, 5120, Update::kRows, true, fp8, true},
                        {256, 5120, Update::kBoth, false, i8, true},
                        {256, 5120, Update::kDelta, false, fp8, true},
                        {256, 5120, Update::kDeltaKept, true, i8, true},
                        {4096, 5120, Update::kRows, true, fp8, true},
                        {4096, 5120, Update::kBoth, false, i8, true},
                        {4096, 5120, Update::kDelta, true, none, true},
                        {4096, 5120, Update::kDeltaKept, true, i8, true},
                        {4096, 5120, Update::kNone, false, i8, true}}) {
    // n: the mean of squares (a sum that walks at random, halved by the root), the root, its inverse, two
    // products. Before a rounding to bf16 or to eight bits such a difference may move an element to the next
    // number: one unit in the last place, of at most 2^-7 or 2^-3 of it, or 1.
    const double roundings = 4 + std::sqrt(static_cast<double>(d.D)) / 2;
    const auto units = [](const ResidualNorm& a) {
      std::vector<double> u = to_doubles(a.q);
      for (double& q : u) q = a.q.dtype == DType::kI8 ? 1 : std::max(std::abs(q), 0x1p-6) / 8;
      return u;
    };
    add<ResidualNorm>(ops::residual_norm_table(),
                      {.params = d.params(),
                       .make = [=](Inputs& in) { return make(in, d); },
                       .outputs = {{"x", &ResidualNorm::x},  // each addition rounds once, in a fixed order
                                   {"normed", &ResidualNorm::normed, 2, 0x1p-8},
                                   {"q", &ResidualNorm::q, 1, 1, units},
                                   {"q_scale", &ResidualNorm::q_scale, roundings}},
                       .perf = d.perf,
                       .gpu_only = d.gpu_only,
                       .slow_races = d.T > 1000,
                       .bytes = d.bytes()});
  }
  for (const Dims& d : {Dims{150, 5120, Update::kRows, true, fp8},
                        {150, 1536, Update::kDelta, false, i8},
                        {150, 5120, Update::kDeltaKept, true, i8},
                        {150, 5120, Update::kBoth, false, i8}}) {
    AnyCase any = erase(ops::residual_norm_table(), d.params() + " in parts");
    any.test = [=](const std::string& impl) { return same_in_parts(impl, d, {1, 8, 150}); };
    any.refusal = [=](const std::string& impl) {
      Inputs in(kSeed);
      return find_impl(ops::residual_norm_table(), impl).supports(make(in, d));
    };
    all_cases().push_back(std::move(any));
  }
  for (const int64_t T : {1, 150}) {
    AnyCase any = erase(ops::residual_norm_table(), str("T=", T, " D=5120 delta added with the rows"));
    any.test = [=](const std::string& impl) { return same_deferred(impl, T, 5120); };
    any.refusal = [=](const std::string& impl) {
      Inputs in(kSeed);
      return find_impl(ops::residual_norm_table(), impl).supports(make(in, {T, 5120, Update::kBoth, true}));
    };
    all_cases().push_back(std::move(any));
  }
});

}  // namespace
}  // namespace moge::test
