#include "ops/attention.h"

#include <numeric>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::AttentionBwd;
using ops::AttentionFwd;

struct Dims {
  std::vector<int32_t> lens;
  int64_t H, KV, Dh;
  bool fused = false;  // q, k, v are slices of one qkv, dq, dk, dv of one dqkv
  bool perf = false;
  int64_t T() const { return std::accumulate(lens.begin(), lens.end(), int64_t{0}); }
  std::string params() const {
    std::string s = "lens=";
    for (size_t i = 0; i < lens.size() && i < 4; ++i) s += str(i ? "," : "", lens[i]);
    if (lens.size() > 4) s += str(",..(", lens.size(), ")");
    return s + str(" H=", H, " KV=", KV, " Dh=", Dh, fused ? " fused" : "");
  }
  float scale() const { return 1 / std::sqrt(static_cast<float>(Dh)); }
  /// Query-key pairs that the causal mask leaves, all heads.
  double pairs() const {
    double sum = 0;
    for (const double n : lens) sum += n * (n + 1) / 2;
    return sum * static_cast<double>(H);
  }
  /// A score is a sum of Dh products whose errors walk at random, and its absolute error is a probability's
  /// relative one; the sums over keys add theirs. Four standard deviations, as thousands are compared.
  double roundings() const {
    return 4 * std::sqrt(static_cast<double>(Dh)) + 4 * std::sqrt(static_cast<double>(T())) + 16;
  }
};

struct QKV {
  Tensor q, k, v;
};
QKV split(const Tensor& qkv, const Dims& d) {
  return {qkv.slice(1, 0, d.H), qkv.slice(1, d.H, d.H + d.KV), qkv.slice(1, d.H + d.KV, d.H + 2 * d.KV)};
}
QKV make_qkv(const Dims& d, const std::function<Tensor(Shape)>& make) {
  if (d.fused) return split(make({d.T(), d.H + 2 * d.KV, d.Dh}), d);
  return {make({d.T(), d.H, d.Dh}), make({d.T(), d.KV, d.Dh}), make({d.T(), d.KV, d.Dh})};
}

AttentionFwd make_fwd(Inputs& in, const Dims& d) {
  const auto [q, k, v] = make_qkv(d, [&](Shape s) { return in.normal(s); });
  std::vector<int32_t> cu{0};
  for (const int32_t n : d.lens) cu.push_back(cu.back() + n);
  return {.out = in.output({d.T(), d.H, d.Dh}),
          .lse = in.output({d.T(), d.H}),
          .q = q,
          .k = k,
          .v = v,
          .cu_seqlens = in.values(cu),
          .scale = d.scale()};
}

AttentionBwd bind_bwd(const AttentionFwd& f, Inputs& in, const Dims& d) {
  const auto [dq, dk, dv] = make_qkv(d, [&](Shape s) { return in.output(s); });
  return {.dq = dq,
          .dk = dk,
          .dv = dv,
          .dout = {},
          .out = f.out,
          .lse = f.lse,
          .q = f.q,
          .k = f.k,
          .v = f.v,
          .cu_seqlens = f.cu_seqlens,
          .scale = f.scale};
}

/// The forward's outputs come from the fastest implementation: every backward is given the same ones.
AttentionBwd make_bwd(Inputs& in, const Dims& d) {
  const AttentionFwd f = make_fwd(in, d);
  for (const Impl<AttentionFwd>& impl : ops::attention_fwd_table().impls) {
    if (!impl.supports(f).empty()) continue;
    Bench(1).run(ops::attention_fwd_table(), impl, f);
    break;
  }
  AttentionBwd b = bind_bwd(f, in, d);
  b.dout = in.normal(b.out.shape);
  return b;
}

/// The sums behind dq, dk, dv with every term's size instead of its value: ds = p (dp - delta) cancels, so
/// its error is relative to |dout| |v| + |delta|.
std::vector<double> magnitude(const AttentionBwd& a, Tensor AttentionBwd::*which) {
  const int64_t H = a.q.dim(1), KV = a.k.dim(1), Dh = a.q.dim(2), G = H / KV;
  const auto q = to_doubles(a.q), k = to_doubles(a.k), v = to_doubles(a.v), dout = to_doubles(a.dout);
  const auto out = to_doubles(a.out), lse = to_doubles(a.lse);
  const auto dot = [Dh](const double* x, const double* y) { return std::inner_product(x, x + Dh, y, 0.0); };
  const auto norm = [&](const double* x) { return std::sqrt(dot(x, x)); };
  std::vector<double> sum((a.*which).numel());
  const auto cu = elements<int32_t>(a.cu_seqlens);
  for (size_t b = 0; b + 1 < cu.size(); ++b) {
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t t = cu[b]; t < cu[b + 1]; ++t) {
        const int64_t row = (t * H + h) * Dh;
        const double delta = std::abs(dot(&dout[row], &out[row])), dout_norm = norm(&dout[row]);
        for (int64_t j = cu[b]; j <= t; ++j) {
          const int64_t key = (j * KV + h / G) * Dh;
          const double p = std::exp(a.scale * dot(&q[row], &k[key]) - lse[t * H + h]);
          const double ds = a.scale * p * (dout_norm * norm(&v[key]) + delta);
          for (int64_t i = 0; i < Dh; ++i) {
            if (which == &AttentionBwd::dq) sum[row + i] += ds * std::abs(k[key + i]);
            if (which == &AttentionBwd::dk) sum[key + i] += ds * std::abs(q[row + i]);
            if (which == &AttentionBwd::dv) sum[key + i] += p * std::abs(dout[row + i]);
          }
        }
      }
    }
  }
  return sum;
}

Output<AttentionBwd> output(const char* name, Tensor AttentionBwd::*tensor, const Dims& d) {
  return {.name = name,
          .tensor = tensor,
          .roundings = 4 * std::sqrt(static_cast<double>(d.Dh)) + 16,
          .magnitude = [tensor](const AttentionBwd& a) { return magnitude(a, tensor); }};
}

const Cases cases([] {
  std::vector<Dims> all{
      {{1}, 1, 1, 64},
      {{15}, 4, 4, 16},
      {{16}, 4, 1, 8},
      {{17}, 8, 1, 80},
      {{63, 64, 65}, 4, 2, 64, true},
      {{511}, 2, 1, 128},
      {{1, 0, 15, 200, 16, 17, 129, 1}, 8, 2, 16, true},
      {{130, 127, 128}, 3, 3, 24},
      {{300}, 16, 1, 33},
      {{}, 2, 1, 8},
  };
  for (const int64_t Dh : {64, 128}) {
    const std::vector<int32_t> lens(8, 512);
    all.push_back({lens, Dh == 64 ? 4 : 16, Dh == 64 ? 2 : 4, Dh, true, true});
  }
  all.push_back({{4096}, 4, 2, 64, true, true});
  for (const Dims& d : all) {
    add<AttentionFwd>(ops::attention_fwd_table(), {.params = d.params(),
                                                   .make = [=](Inputs& in) { return make_fwd(in, d); },
                                                   .outputs = {{"out", &AttentionFwd::out, d.roundings()},
                                                               {"lse", &AttentionFwd::lse, d.roundings()}},
                                                   .perf = d.perf,
                                                   .flops = 4.0 * d.pairs() * static_cast<double>(d.Dh)});
    add<AttentionBwd>(ops::attention_bwd_table(),
                      {.params = d.params(),
                       .make = [=](Inputs& in) { return make_bwd(in, d); },
                       .outputs = {output("dq", &AttentionBwd::dq, d), output("dk", &AttentionBwd::dk, d),
                                   output("dv", &AttentionBwd::dv, d)},
                       .perf = d.perf,
                       .flops = 10.0 * d.pairs() * static_cast<double>(d.Dh)});
  }
  for (const Dims& d : {Dims{{5, 1, 18}, 4, 2, 8, true}, Dims{{140}, 2, 1, 16}}) {
    add_grad<AttentionFwd, AttentionBwd>(
        ops::attention_fwd_table(), ops::attention_bwd_table(),
        {.params = d.params(),
         .make = [=](Inputs& in) { return make_fwd(in, d); },
         .outputs = {{&AttentionFwd::out, &AttentionBwd::dout}},
         .bind = [=](const AttentionFwd& f, Inputs& in) { return bind_bwd(f, in, d); },
         .inputs = {{&AttentionFwd::q, &AttentionBwd::dq},
                    {&AttentionFwd::k, &AttentionBwd::dk},
                    {&AttentionFwd::v, &AttentionBwd::dv}}});
  }
});

}  // namespace
}  // namespace moge::test
