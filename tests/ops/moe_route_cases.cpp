#include "ops/moe_route.h"

#include "core/cpu_info.h"
#include "ops/harness.h"
#include "ops/matmul.h"

namespace moge::test {
namespace {

using ops::MoeRoute;

struct Dims {
  int64_t T, D, E, K, S;
  int G;
  DType gate = DType::kBF16;
  bool scaled = false, renormalize = false;
  const char* what = "";  ///< "ties", "one expert", "empty experts", "of bf16", "partly of bf16"
  bool perf = false;
  bool gpu_only = false;
};

/// Ties: rows of the gate that are equal, four by four. One expert (of each group): that row is the sum of
/// the tokens' common direction. Empty experts: those of odd index are its negative. Of bf16: an f32 gate
/// whose elements (partly: those of the odd hundreds of a row) are bf16s.
void shape_gate(const Dims& d, const Tensor& x, const Tensor& gate) {
  const std::string what = d.what;
  const std::vector<double> g = to_doubles(gate);
  for (int64_t e = 0; e < d.E && !what.empty(); ++e)
    for (int64_t i = 0; i < d.D; ++i) {
      double v = g[e * d.D + i];
      if (what == "ties") v = g[e / 4 * 4 * d.D + i];
      if (what == "one expert" && e % (d.E / d.G) == 1) v = 4.0 / std::sqrt(static_cast<double>(d.D));
      if (what == "empty experts" && e % 2 == 1) v = -4.0 / std::sqrt(static_cast<double>(d.D));
      if (what == "of bf16" || (what == "partly of bf16" && i / 100 % 2 == 1))
        v = to_f32(to_bf16(static_cast<float>(v)));
      set_element(gate, e * d.D + i, v);
    }
  if (what != "one expert" && what != "empty experts") return;
  const std::vector<double> tokens = to_doubles(x);
  for (int64_t i = 0; i < x.numel(); ++i) set_element(x, i, tokens[i] + 1);
}

MoeRoute make(Inputs& in, const Dims& d) {
  const int64_t R = d.T * (d.K + d.S);
  const MoeRoute a{.topk_ids = in.output({d.T, d.K}, DType::kI32),
                   .topk_weights = in.output({d.T, d.K}),
                   .offsets = in.output({d.E + d.S + 1}, DType::kI32),
                   .row_token = in.output({R}, DType::kI32),
                   .row_weight = in.output({R}),
                   .slot_row = in.output({d.T, d.K + d.S}, DType::kI32),
                   .x = in.normal({d.T, d.D}, 1, DType::kBF16),
                   .gate = in.normal({d.E, d.D}, 1 / std::sqrt(static_cast<float>(d.D)), d.gate),
                   .router_scale = d.scaled ? in.uniform({d.E}, 0.5F, 2) : Tensor{},
                   .num_groups = d.G,
                   .renormalize = d.renormalize};
  shape_gate(d, a.x, a.gate);
  return a;
}

/// A token's experts and weights do not depend on its company.
std::string same_in_fewer(const std::string& name, const Dims& d, const std::vector<int64_t>& fewer) {
  const OpTable<MoeRoute>& table = ops::moe_route_table();
  const Impl<MoeRoute>& impl = find_impl(table, name);
  Inputs in(kSeed);
  Bench bench(2);
  const MoeRoute all = make(in, d);
  bench.run(table, impl, all);
  for (const int64_t T : fewer) {
    Inputs few_in(kSeed);
    Dims few_dims = d;
    few_dims.T = T;
    MoeRoute few = make(few_in, few_dims);
    few.x = all.x.slice(0, d.T - T, d.T);
    few.gate = all.gate;
    few.router_scale = all.router_scale;
    bench.run(table, impl, few);
    for (Tensor MoeRoute::*t : {&MoeRoute::topk_ids, &MoeRoute::topk_weights}) {
      const std::string why = same_bits("picks", few.*t, (all.*t).slice(0, d.T - T, d.T));
      if (!why.empty()) return str("the last ", T, " of ", d.T, ": ", why);
    }
  }
  return "";
}

/// The gate packed for the CPU's products (pack_weight) gives the same bits.
std::string same_when_packed(const std::string& name, const Dims& d) {
  const OpTable<MoeRoute>& table = ops::moe_route_table();
  Bench bench(2);
  std::vector<MoeRoute> runs;
  Inputs plain_in(kSeed), packed_in(kSeed);
  for (Inputs* in : {&plain_in, &packed_in}) {
    MoeRoute a = make(*in, d);
    if (in == &packed_in) a.gate = ops::pack_weight(bench.ctx, a.gate);
    bench.run(table, find_impl(table, name), a);
    runs.push_back(a);
  }
  if (runs[1].gate.layout != Layout::kPanels && cpu_info().avx2) return "the gate was not packed";
  for (Tensor MoeRoute::*t : {&MoeRoute::topk_ids, &MoeRoute::topk_weights, &MoeRoute::slot_row}) {
    const std::string why = same_bits("picks", runs[1].*t, runs[0].*t);
    if (!why.empty()) return why;
  }
  return "";
}

const Cases cases([] {
  const DType f32 = DType::kF32, bf16 = DType::kBF16;
  for (const Dims& d : {Dims{1, 5120, 64, 8, 4, 8, bf16, true},
                        {1, 16, 1, 1, 0, 1},
                        {7, 256, 16, 4, 2, 4, f32, true},
                        {8, 2560, 64, 8, 4, 8, f32},
                        {63, 512, 64, 8, 4, 8, bf16, false, true},
                        {64, 1024, 64, 8, 4, 8, bf16, true},
                        {65, 200, 128, 8, 0, 1, bf16, false, true},
                        {300, 128, 48, 12, 1, 6, f32, true, true},
                        {33, 256, 64, 8, 4, 8, bf16, true, false, "ties"},
                        {65, 256, 64, 8, 4, 8, bf16, true, false, "one expert"},
                        {513, 64, 64, 8, 2, 8, bf16, false, false, "empty experts"},
                        {1100, 64, 64, 8, 4, 8, bf16, true},
                        {300, 512, 64, 8, 4, 8, f32, true, false, "partly of bf16"},
                        {0, 64, 16, 4, 2, 4},
                        // more tokens than a block places at once
                        {4096, 64, 64, 8, 4, 8, bf16, true, false, "", false, true},
                        {4100, 64, 64, 8, 4, 8, bf16, true, false, "", false, true},
                        {9000, 64, 64, 8, 1, 8, f32, true, false, "empty experts", false, true},
                        {1, 5120, 64, 8, 4, 8, f32, true, false, "", true},
                        {16, 5120, 64, 8, 4, 8, f32, true, false, "", true},
                        {300, 5120, 64, 8, 4, 8, f32, true, false, "", true},
                        {512, 5120, 64, 8, 4, 8, f32, true, false, "", true},
                        {1024, 5120, 64, 8, 4, 8, f32, true, false, "", true},
                        {300, 5120, 64, 8, 4, 8, f32, true, false, "of bf16", true},
                        {4096, 5120, 64, 8, 4, 8, f32, true, false, "", true},
                        {4096, 5120, 64, 8, 4, 8, f32, true, false, "of bf16", true},
                        {4096, 5120, 64, 8, 4, 8, bf16, true, false, "", true}}) {
    // A logit of size up to 5 is off by some sqrt(D) roundings at worst, and so, relatively, is a score.
    const double roundings =
        24 + 5 * std::sqrt(static_cast<double>(d.D)) + std::sqrt(static_cast<double>(d.E));
    add<MoeRoute>(
        ops::moe_route_table(),
        {.params =
             str("T=", d.T, " D=", d.D, " E=", d.E, " K=", d.K, " S=", d.S, " G=", d.G, " ", name_of(d.gate),
                 d.scaled ? " scaled" : "", d.renormalize ? " renormalized" : "", *d.what ? " " : "", d.what),
         .make = [=](Inputs& in) { return make(in, d); },
         .outputs = {{"topk_ids", &MoeRoute::topk_ids},
                     {"topk_weights", &MoeRoute::topk_weights, 2 * roundings},
                     {"offsets", &MoeRoute::offsets},
                     {"row_token", &MoeRoute::row_token},
                     {"row_weight", &MoeRoute::row_weight, 2 * roundings},
                     {"slot_row", &MoeRoute::slot_row}},
         .perf = d.perf,
         .gpu_only = d.gpu_only,
         .slow_races = d.gpu_only && d.T != 4100,  // the one of two passes
         .flops = 2.0 * static_cast<double>(d.T * d.D * d.E),
         .bytes = static_cast<double>(2 * d.T * d.D + size_of(d.gate) * d.E * d.D + d.T * (d.K + d.S) * 20)});
  }
  for (const Dims& d : {Dims{2300, 520, 64, 8, 4, 8, bf16, true},
                        {2300, 264, 48, 12, 1, 6, f32, true, true},
                        {2300, 520, 64, 8, 4, 8, f32, true, true, "of bf16"},
                        {2300, 520, 64, 8, 4, 8, f32, true, true, "partly of bf16"}}) {
    AnyCase any = erase(ops::moe_route_table(),
                        str("alone or in a batch, gate ", name_of(d.gate), *d.what ? " " : "", d.what));
    any.test = [=](const std::string& impl) { return same_in_fewer(impl, d, {1, 8, 9, 65, 300, 1100}); };
    any.refusal = [=](const std::string& impl) {
      Inputs in(kSeed);
      return find_impl(ops::moe_route_table(), impl).supports(make(in, d));
    };
    all_cases().push_back(std::move(any));
  }
  for (const int64_t T : {1, 9, 800}) {
    const Dims d{T, 1100, 64, 8, 4, 8, f32, true};
    AnyCase any = erase(ops::moe_route_table(), str("packed gate T=", T));
    any.test = [=](const std::string& impl) { return same_when_packed(impl, d); };
    any.refusal = [=](const std::string& impl) -> std::string {
      const Impl<MoeRoute>& found = find_impl(ops::moe_route_table(), impl);
      if (found.device != DeviceKind::kCpu) return "weights are packed for the CPU only";
      Inputs in(kSeed);
      return found.supports(make(in, d));
    };
    all_cases().push_back(std::move(any));
  }
});

}  // namespace
}  // namespace moge::test
