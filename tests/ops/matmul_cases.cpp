#include "ops/matmul.h"

#include <cstring>
#include <numeric>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::BiasBwd;
using ops::MatmulNN;
using ops::MatmulNT;
using ops::MatmulTN;

struct Dims {
  std::vector<int32_t> rows;  ///< of each group
  int64_t N, K;
  DType dtype = DType::kF32;
  DType operands = DType::kF32;  ///< bf16: the activations too
  bool grouped = false;
  bool gather = false;   ///< operands of [T, .] through row_ids, with repeats
  bool strided = false;  ///< rows further apart than they are long
  bool packed = false;   ///< NT: weight through pack_weight
  bool bias = false;     ///< NT
  bool add = false;
  bool in_place = false;  ///< add is c itself
  bool perf = false;

  int64_t R() const { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }
  int64_t G() const { return static_cast<int64_t>(rows.size()); }
  int64_t T() const { return gather ? R() / 3 + 1 : R(); }
  Shape weight_shape() const { return grouped ? Shape{G(), N, K} : Shape{N, K}; }
  double flops() const { return 2.0 * static_cast<double>(R() * N * K); }
  std::string params() const {
    std::string s = grouped ? "R=" : "";
    if (!grouped) s += str("R=", R());
    for (size_t g = 0; grouped && g < rows.size() && g < 4; ++g) s += str(g ? "," : "", rows[g]);
    if (rows.size() > 4) s += str(",..(", rows.size(), ")");
    const bool both = operands == DType::kBF16;
    return s + str(" N=", N, " K=", K, " ", name_of(dtype), both ? " both" : "", grouped ? " grouped" : "",
                   gather ? " gather" : "", strided ? " strided" : "", packed ? " packed" : "",
                   bias ? " bias" : "", add ? " add" : "", in_place ? " add=c" : "");
  }
};

/// [rows, cols], contiguous or a slice of something wider.
Tensor matrix(const Dims& d, int64_t rows, int64_t cols, const std::function<Tensor(Shape)>& make) {
  return d.strided ? make({rows, cols + 5}).slice(1, 3, 3 + cols) : make({rows, cols});
}
Tensor operand(Inputs& in, const Dims& d, int64_t cols) {
  return matrix(d, d.T(), cols, [&](Shape s) { return in.normal(s, 1, d.operands); });
}
Tensor result(Inputs& in, const Dims& d, int64_t cols) {
  return matrix(d, d.R(), cols, [&](Shape s) { return d.in_place ? in.normal(s) : in.output(s); });
}
Tensor offsets(Inputs& in, const Dims& d) {
  if (!d.grouped) return {};
  std::vector<int32_t> v{0};
  for (const int32_t n : d.rows) v.push_back(v.back() + n);
  return in.values(v);
}
Tensor row_ids(Inputs& in, const Dims& d) {
  return d.gather ? in.ints({d.R()}, 0, static_cast<int32_t>(d.T())) : Tensor{};
}
Tensor weight(Inputs& in, const Dims& d) {
  if (d.strided && !d.grouped) return in.normal({d.N, d.K + 3}, 1, d.dtype).slice(1, 1, 1 + d.K);
  const Tensor w = in.normal(d.weight_shape(), 1, d.dtype);
  Bench bench(2);
  return d.packed ? ops::pack_weight(bench.ctx, w) : w;
}
Tensor addend(Inputs& in, const Dims& d, const Tensor& c, int64_t cols) {
  if (d.in_place) return c;
  return d.add ? matrix(d, d.R(), cols, [&](Shape s) { return in.normal(s); }) : Tensor{};
}

MatmulNT make_nt(Inputs& in, const Dims& d) {
  const Tensor c = result(in, d, d.N);
  return {.c = c,
          .a = operand(in, d, d.K),
          .w = weight(in, d),
          .bias = d.bias ? in.normal({d.N}) : Tensor{},
          .add = addend(in, d, c, d.N),
          .offsets = offsets(in, d),
          .row_ids = row_ids(in, d)};
}
MatmulNN make_nn(Inputs& in, const Dims& d) {
  const Tensor c = result(in, d, d.K);
  return {.c = c,
          .a = operand(in, d, d.N),
          .w = weight(in, d),
          .add = addend(in, d, c, d.K),
          .offsets = offsets(in, d),
          .row_ids = row_ids(in, d)};
}
MatmulTN make_tn(Inputs& in, const Dims& d) {
  const Tensor ids = row_ids(in, d);
  return {.c = in.normal(d.weight_shape()),
          .a = d.gather ? in.normal({d.R(), d.N}, 1, d.operands) : operand(in, d, d.N),
          .b = operand(in, d, d.K),
          .offsets = offsets(in, d),
          .a_row_ids = {},
          .b_row_ids = ids,
          .compute = d.dtype};
}

std::vector<int64_t> group_of_rows(const Dims& d) {
  std::vector<int64_t> groups;
  for (size_t g = 0; g < d.rows.size(); ++g) groups.insert(groups.end(), d.rows[g], static_cast<int64_t>(g));
  return groups;
}
std::vector<int64_t> source_rows(const Dims& d, const Tensor& ids) {
  std::vector<int64_t> rows(d.R());
  for (int64_t r = 0; r < d.R(); ++r) rows[r] = ids ? ids.ptr<int32_t>()[r] : r;
  return rows;
}

/// What the rounding errors of c = a @ op(w) + bias + add are relative to: |a| @ |op(w)| + |bias| + |add|.
/// An `add` that was c is gone; |c| + |a| @ |op(w)| bounds it.
std::vector<double> rows_magnitude(const Dims& d, const Tensor& c, const Tensor& a, const Tensor& ids,
                                   const std::vector<double>& w, bool transposed, const Tensor& bias,
                                   const Tensor& add) {
  const int64_t cols = transposed ? d.K : d.N, inner = transposed ? d.N : d.K;
  const std::vector<double> av = to_doubles(a), cv = to_doubles(c);
  const std::vector<double> bias_v = bias ? to_doubles(bias) : std::vector<double>(cols);
  const std::vector<double> add_v = add ? to_doubles(add) : std::vector<double>(cv.size());
  const std::vector<int64_t> groups = group_of_rows(d), sources = source_rows(d, ids);
  std::vector<double> m(cv.size());
  for (int64_t r = 0; r < d.R(); ++r) {
    for (int64_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < inner; ++i) {
        const int64_t n = transposed ? i : j, k = transposed ? j : i;
        sum += std::abs(av[sources[r] * inner + i] * w[((d.grouped ? groups[r] * d.N : 0) + n) * d.K + k]);
      }
      m[r * cols + j] = (d.in_place ? 2 : 1) * sum + std::abs(bias_v[j]) + std::abs(add_v[r * cols + j]);
    }
  }
  return m;
}

/// The weight's values in [N, K] order: packed ones are made again, unpacked.
std::vector<double> weight_values(const Dims& d) {
  Dims plain = d;
  plain.packed = false;
  Inputs in(kSeed);
  return to_doubles(make_nt(in, plain).w);
}

/// |c| + |a|^T @ |b|, twice the sum because c before the call is bounded by c after it and the sum.
std::vector<double> outer_magnitude(const Dims& d, const MatmulTN& t) {
  const std::vector<double> a = to_doubles(t.a), b = to_doubles(t.b);
  const std::vector<int64_t> groups = group_of_rows(d), b_rows = source_rows(d, t.b_row_ids);
  std::vector<double> m = to_doubles(t.c);
  for (double& v : m) v = std::abs(v);
  for (int64_t r = 0; r < d.R(); ++r)
    for (int64_t n = 0; n < d.N; ++n)
      for (int64_t k = 0; k < d.K; ++k)
        m[((d.grouped ? groups[r] * d.N : 0) + n) * d.K + k] +=
            2 * std::abs(a[r * d.N + n] * b[b_rows[r] * d.K + k]);
  return m;
}

/// One rounding per product or partial sum, and those of bias, add and the reference. Inputs round to bf16 in
/// the reference too; the product of two bf16 is exact in fp32.
double roundings(int64_t inner) {
  return static_cast<double>(inner) + 4;
}

void add_cases(const Dims& d) {
  if (!d.packed || d.perf)
    add<MatmulTN>(ops::matmul_tn_table(),
                  {.params = d.params(),
                   .make = [=](Inputs& in) { return make_tn(in, d); },
                   .outputs = {{.name = "c",
                                .tensor = &MatmulTN::c,
                                .roundings = roundings(d.R()),
                                .magnitude = [=](const MatmulTN& t) { return outer_magnitude(d, t); }}},
                   .perf = d.perf,
                   .flops = d.flops()});
  if (!d.packed)
    add<MatmulNN>(ops::matmul_nn_table(), {.params = d.params(),
                                           .make = [=](Inputs& in) { return make_nn(in, d); },
                                           .outputs = {{.name = "c",
                                                        .tensor = &MatmulNN::c,
                                                        .roundings = roundings(d.N),
                                                        .magnitude =
                                                            [=](const MatmulNN& a) {
                                                              return rows_magnitude(d, a.c, a.a, a.row_ids,
                                                                                    to_doubles(a.w), true, {},
                                                                                    a.add);
                                                            }}},
                                           .perf = d.perf,
                                           .flops = d.flops()});
  add<MatmulNT>(ops::matmul_nt_table(), {.params = d.params(),
                                         .make = [=](Inputs& in) { return make_nt(in, d); },
                                         .outputs = {{.name = "c",
                                                      .tensor = &MatmulNT::c,
                                                      .roundings = roundings(d.K),
                                                      .magnitude =
                                                          [=](const MatmulNT& a) {
                                                            return rows_magnitude(d, a.c, a.a, a.row_ids,
                                                                                  weight_values(d), false,
                                                                                  a.bias, a.add);
                                                          }}},
                                         .perf = d.perf,
                                         .flops = d.flops()});
}

/// A row's bits must not depend on how many rows there are, nor on whether the weight is packed.
void add_row_independence(DType dtype, int64_t N, int64_t K) {
  OpTable<MatmulNT>& table = ops::matmul_nt_table();
  AnyCase any = erase(table, str("row independence N=", N, " K=", K, " ", name_of(dtype)));
  any.test = [=, &table](const std::string& name) -> std::string {
    const auto run = [&](int64_t R, bool packed, Inputs& in) {
      Dims d{.rows = {static_cast<int32_t>(R)}, .N = N, .K = K, .dtype = dtype};
      const Tensor w = in.normal({N, K}, 1, dtype);
      const Tensor a = in.normal({205, K});
      Bench bench(2);
      const MatmulNT args{.c = in.output({R, N}),
                          .a = a.slice(0, 0, R),
                          .w = packed ? ops::pack_weight(bench.ctx, w) : w,
                          .bias = {},
                          .add = {},
                          .offsets = {},
                          .row_ids = {}};
      bench.run(table, find_impl(table, name), args);
      return args.c;
    };
    Inputs all_in(kSeed);
    const Tensor all = run(205, false, all_in);
    for (const int64_t R : {1, 2, 3, 4, 5, 6, 7, 8, 13, 97, 205})
      for (const bool packed : {false, true}) {
        Inputs in(kSeed);
        const Tensor c = run(R, packed, in);
        if (std::memcmp(c.data, all.data, c.bytes()) != 0)
          return str("R=", R, packed ? " packed" : "", ": bits differ from those of 205 rows");
      }
    return "";
  };
  any.refusal = [](const std::string&) { return ""; };
  if (dtype == DType::kBF16)
    any.refusal = [&table](const std::string& name) {
      Inputs in(kSeed);
      return find_impl(table, name)
          .supports(make_nt(in, {.rows = {1}, .N = 16, .K = 2, .dtype = DType::kBF16}));
    };
  all_cases().push_back(std::move(any));
}

/// Activations in bf16 must give the bits of the same values in fp32.
template <class Args>
void add_bf16_operands(OpTable<Args>& table, const Dims& d, Args (*make)(Inputs&, const Dims&),
                       const std::vector<std::vector<Tensor Args::*>>& widened) {
  AnyCase any = erase(table, d.params() + " as f32");
  any.test = [=, &table](const std::string& name) -> std::string {
    const Impl<Args>& impl = find_impl(table, name);
    const auto run = [&](Inputs& in, const std::vector<Tensor Args::*>& as_f32) {
      Args args = make(in, d);
      for (Tensor Args::*const t : as_f32) {
        const std::vector<double> values = to_doubles(args.*t);
        args.*t = in.output((args.*t).shape);
        for (size_t i = 0; i < values.size(); ++i) set_element(args.*t, static_cast<int64_t>(i), values[i]);
      }
      Bench(2).run(table, impl, args);
      return args.c;
    };
    Inputs in(kSeed);
    const Tensor c = run(in, {});
    for (const auto& operands : widened) {
      Inputs other_in(kSeed);
      const std::string why = same_bits("c", run(other_in, operands), c);
      if (!why.empty()) return why;
    }
    return "";
  };
  any.refusal = [=, &table](const std::string& name) {
    Inputs in(kSeed);
    return find_impl(table, name).supports(make(in, d));
  };
  all_cases().push_back(std::move(any));
}

template <class Bwd>
void add_linear_grad(const Dims& d, OpTable<Bwd>& table, Tensor Bwd::*dy, Tensor MatmulNT::*x,
                     Tensor Bwd::*dx, const std::function<Bwd(const MatmulNT&, Inputs&)>& bind) {
  add_grad<MatmulNT, Bwd>(ops::matmul_nt_table(), table,
                          {.params = d.params(),
                           .make = [=](Inputs& in) { return make_nt(in, d); },
                           .outputs = {{&MatmulNT::c, dy}},
                           .bind = bind,
                           .inputs = {{x, dx}}});
}

const Cases cases([] {
  constexpr DType kBF16 = DType::kBF16;
  for (const DType dtype : {DType::kF32, kBF16}) {
    for (const int32_t R : {0, 1, 7, 8, 63, 64, 65, 257})
      add_cases({.rows = {R}, .N = 96, .K = 100, .dtype = dtype});
    for (const int64_t K : {0, 1, 2, 15, 64, 1000})
      add_cases({.rows = {13}, .N = 50, .K = K, .dtype = dtype});
    for (const int64_t N : {0, 1, 16, 50, 64, 1344})
      add_cases({.rows = {9}, .N = N, .K = 35, .dtype = dtype});
    add_cases({.rows = {33}, .N = 80, .K = 600, .dtype = dtype, .strided = true, .bias = true, .add = true});
    add_cases(
        {.rows = {14}, .N = 37, .K = 33, .dtype = dtype, .gather = true, .strided = true, .in_place = true});
    add_cases(
        {.rows = {20}, .N = 208, .K = 1040, .dtype = dtype, .packed = true, .bias = true, .in_place = true});
    add_cases({.rows = {1}, .N = 1344, .K = 64, .dtype = dtype, .packed = true});
    const std::vector<int32_t> uneven{0, 1, 130, 0, 6, 7, 0, 33, 0};
    add_cases(
        {.rows = uneven, .N = 48, .K = 70, .dtype = dtype, .grouped = true, .gather = true, .add = true});
    add_cases({.rows = uneven, .N = 112, .K = 66, .dtype = dtype, .grouped = true, .packed = true});
    add_cases({.rows = {0, 100, 0}, .N = 33, .K = 17, .dtype = dtype, .grouped = true, .in_place = true});
    add_cases({.rows = {0, 0}, .N = 32, .K = 16, .dtype = dtype, .grouped = true});
    // So wide that matmul_nn packs panels together, over several step blocks; and in groups.
    add_cases({.rows = {25}, .N = 1100, .K = 2130, .dtype = dtype, .in_place = true});
    add_cases({.rows = {30, 0, 40}, .N = 40, .K = 700, .dtype = dtype, .grouped = true, .add = true});
    // Few rows, by which matmul_nn multiplies fp32 weights where they lie; several step blocks, a narrow
    // panel.
    add_cases({.rows = {8}, .N = 210, .K = 208, .dtype = dtype, .strided = true, .add = true});
    add_cases({.rows = {2, 0, 5}, .N = 70, .K = 144, .dtype = dtype, .grouped = true, .gather = true});
    // Few rows, by which matmul_nt multiplies rows of words where they lie, and two halves of a packed panel.
    add_cases({.rows = {8}, .N = 150, .K = 333, .dtype = dtype, .strided = true, .bias = true, .add = true});
    add_cases({.rows = {6}, .N = 150, .K = 334, .dtype = dtype, .bias = true, .in_place = true});
    add_cases({.rows = {3, 8, 0, 5}, .N = 150, .K = 98, .dtype = dtype, .grouped = true, .gather = true});
    add_cases(
        {.rows = {7}, .N = 240, .K = 334, .dtype = dtype, .packed = true, .bias = true, .in_place = true});
    // More rows than a chunk or a batch holds; odd groups across the cut.
    add_cases({.rows = {3001}, .N = 16, .K = 24, .dtype = dtype});
    add_cases(
        {.rows = {701, 1203, 1, 600}, .N = 24, .K = 16, .dtype = dtype, .grouped = true, .gather = true});
    // Outputs so large that they are written past the caches, with a narrow panel; many rows and few.
    add_cases({.rows = {4099}, .N = 528, .K = 3, .dtype = dtype});
    add_cases({.rows = {4099}, .N = 3, .K = 528, .dtype = dtype});
    add_cases({.rows = {700}, .N = 3008, .K = 3, .dtype = dtype});
    add_row_independence(dtype, 80, 1100);
    add_row_independence(dtype, 64, 34);
  }

  const std::vector<int32_t> uneven{0, 1, 130, 0, 6, 7, 0, 33, 900};
  for (const Dims& d : {Dims{.rows = {1}, .N = 70, .K = 66}, Dims{.rows = {9}, .N = 35, .K = 51},
                        Dims{.rows = {65}, .N = 97, .K = 1043, .strided = true},
                        Dims{.rows = {1003}, .N = 200, .K = 40, .gather = true, .in_place = true},
                        Dims{.rows = uneven, .N = 75, .K = 33, .grouped = true, .gather = true}}) {
    Dims both = d;
    both.dtype = both.operands = kBF16;
    add_cases(both);
    add_bf16_operands<MatmulNT>(ops::matmul_nt_table(), both, make_nt, {{&MatmulNT::a}});
    add_bf16_operands<MatmulNN>(ops::matmul_nn_table(), both, make_nn, {{&MatmulNN::a}});
    add_bf16_operands<MatmulTN>(ops::matmul_tn_table(), both, make_tn,
                                {{&MatmulTN::a}, {&MatmulTN::b}, {&MatmulTN::a, &MatmulTN::b}});
  }

  const Dims dense{.rows = {11}, .N = 24, .K = 20, .bias = true};
  const Dims grouped{.rows = {4, 0, 9}, .N = 24, .K = 20, .grouped = true, .gather = true};
  for (const Dims& d : {dense, grouped})
    add_linear_grad<MatmulTN>(d, ops::matmul_tn_table(), &MatmulTN::a, &MatmulNT::w, &MatmulTN::c,
                              [](const MatmulNT& f, Inputs& in) {
                                return MatmulTN{.c = in.zeros(f.w.shape),
                                                .a = {},
                                                .b = f.a,
                                                .offsets = f.offsets,
                                                .a_row_ids = {},
                                                .b_row_ids = f.row_ids};
                              });
  Dims ungathered = grouped;
  ungathered.gather = false;
  for (const Dims& d : {dense, ungathered})
    add_linear_grad<MatmulNN>(
        d, ops::matmul_nn_table(), &MatmulNN::a, &MatmulNT::a, &MatmulNN::c,
        [](const MatmulNT& f, Inputs& in) {
          return MatmulNN{
              .c = in.output(f.a.shape), .a = {}, .w = f.w, .add = {}, .offsets = f.offsets, .row_ids = {}};
        });
  add_linear_grad<BiasBwd>(
      dense, ops::bias_bwd_table(), &BiasBwd::dy, &MatmulNT::bias, &BiasBwd::dbias,
      [](const MatmulNT& f, Inputs& in) { return BiasBwd{.dbias = in.zeros(f.bias.shape), .dy = {}}; });
  for (const auto& [R, N] : {std::pair<int64_t, int64_t>{0, 5}, {1, 1}, {65, 100}, {257, 64}})
    add<BiasBwd>(ops::bias_bwd_table(),
                 {.params = str("R=", R, " N=", N),
                  .make =
                      [=](Inputs& in) {
                        return BiasBwd{.dbias = in.normal({N}), .dy = in.normal({R, N})};
                      },
                  .outputs = {{"dbias", &BiasBwd::dbias, static_cast<double>(R) + 4}}});

  for (const DType dtype : {DType::kF32, kBF16}) {
    for (const int32_t R : {1, 8, 64, 256, 2048})
      add_cases({.rows = {R}, .N = 1344, .K = 5120, .dtype = dtype, .packed = true, .perf = true});
    add_cases({.rows = {4096}, .N = 512, .K = 256, .dtype = dtype, .perf = true});
    add_cases({.rows = {4096}, .N = 4096, .K = 256, .dtype = dtype, .perf = true});
    const std::vector<int32_t> experts(18, 1024);
    add_cases(
        {.rows = experts, .N = 256, .K = 256, .dtype = dtype, .grouped = true, .gather = true, .perf = true});
    add_cases({.rows = experts, .N = 256, .K = 128, .dtype = dtype, .grouped = true, .perf = true});
  }
});

}  // namespace
}  // namespace moge::test
