// The references of the serving ops against numbers worked out by hand, and what their entries refuse.
#include <gtest/gtest.h>

#include "core/cpu_info.h"
#include "ops/decode_inputs.h"
#include "ops/harness.h"
#include "ops/moe_route.h"
#include "ops/quant_matmul.h"
#include "ops/quantize.h"
#include "ops/random_fill.h"
#include "ops/residual_norm.h"
#include "ops/rope_kv_write.h"
#include "ops/token_layer.h"
#include "refusal.h"

namespace moge::test {
namespace {

using Doubles = std::vector<double>;

/// A bench whose workspace is enough for the small calls here.
class RoomyBench : public Bench {
 public:
  explicit RoomyBench(int num_threads) : Bench(num_threads) { ctx.workspace = &workspace_; }

 private:
  Workspace workspace_{1 << 20};
};

template <class T>
Tensor converted(Inputs& in, const std::vector<float>& values, Shape shape) {
  const Tensor t = in.zeros(shape, dtype_of<T>());
  for (size_t i = 0; i < values.size(); ++i) set_element(t, static_cast<int64_t>(i), values[i]);
  return t;
}

TEST(QuantizeRows, RoundsHalvesToEven) {
  Inputs in(kSeed);
  RoomyBench bench(1);
  // Scale 2 in the first row: x / 2 is 127, 0.5, 1.5, -2.5. A row of zeros. Scale 1: 448 in fp8 below.
  const Tensor x = in.values(std::vector<float>{254, 1, 3, -5, 0, 0, 0, 0}).view({2, 4});
  const ops::QuantizeRows i8{.q = in.output({2, 4}, DType::kI8), .scale = in.output({2}), .x = x};
  ops::quantize_rows(bench.ctx, i8);
  EXPECT_EQ(to_doubles(i8.q), (Doubles{127, 0, 2, -2, 0, 0, 0, 0}));
  EXPECT_EQ(to_doubles(i8.scale), (Doubles{2, 0}));
  // 17 lies between 16 and 18, 19 between 18 and 20: both ties go to the even code.
  const ops::QuantizeRows fp8{.q = in.output({1, 4}, DType::kFP8E4M3),
                              .scale = in.output({1}),
                              .x = in.values(std::vector<float>{-448, 17, 19, 0x1p-10F}).view({1, 4})};
  ops::quantize_rows(bench.ctx, fp8);
  EXPECT_EQ(to_doubles(fp8.q), (Doubles{-448, 16, 20, 0}));
  EXPECT_EQ(to_doubles(fp8.scale), Doubles{1});
}

TEST(ResidualNorm, AddsNormalisesAndQuantises) {
  Inputs in(kSeed);
  RoomyBench bench(1);
  // x + rows[1] + rows[0] = (3, -4, 0, 0): mean square 25/4, so n = x / 2.5 * weight = (1.2, -3.2, 0, 0).
  const ops::ResidualNorm a{.x = in.values(std::vector<float>{1, -1, 1, 0}).view({1, 4}),
                            .delta = {},
                            .rows = converted<BF16>(in, {1, -1, -2, 0, 1, -2, 1, 0}, {2, 4}),
                            .slot_row = in.values(std::vector<int32_t>{1, 0}).view({1, 2}),
                            .weight = in.values(std::vector<float>{1, 2, 3, 4}),
                            .normed = in.output({1, 4}, DType::kBF16),
                            .q = in.output({1, 4}, DType::kI8),
                            .q_scale = in.output({1}),
                            .eps = 0};
  ops::residual_norm(bench.ctx, a);
  EXPECT_EQ(to_doubles(a.x), (Doubles{3, -4, 0, 0}));
  EXPECT_EQ(to_doubles(a.normed), (Doubles{1.203125, -3.203125, 0, 0}));
  EXPECT_EQ(to_doubles(a.q), (Doubles{48, -127, 0, 0}));  // 1.2 * 127 / 3.2 = 47.6
  EXPECT_FLOAT_EQ(a.q_scale.ptr<float>()[0], 3.2F / 127);
}

TEST(RopeKvWrite, TurnsByAQuarter) {
  Inputs in(kSeed);
  RoomyBench bench(1);
  // One query head (1, 2, 3, 4), k = (5, 7, 7, 8), v = (-2, 0, 1, 0.5). Pairs (0, 2) and (1, 3): the first
  // turns by 90 degrees, (a, b) -> (-b, a), the second not at all.
  const ops::RopeKvWrite a{.q = in.output({1, 1, 4}, DType::kBF16),
                           .k_pages = in.zeros({2, 1, 2, 4}, DType::kFP8E4M3),
                           .v_pages = in.zeros({2, 1, 2, 4}, DType::kFP8E4M3),
                           .k_scales = in.zeros({2, 1, 2}),
                           .v_scales = in.zeros({2, 1, 2}),
                           .qkv = converted<BF16>(in, {1, 2, 3, 4, 5, 7, 7, 8, -2, 0, 1, 0.5F}, {1, 3, 4}),
                           .cos_sin = in.values(std::vector<float>{0, 1, 1, 0}).view({1, 4}),
                           .slots = in.values(std::vector<int32_t>{3})};
  ops::rope_kv_write(bench.ctx, a);
  EXPECT_EQ(to_doubles(a.q), (Doubles{-3, 2, 1, 4}));
  // Slot 3 is page 1, offset 1. k turned is (-7, 7, 5, 8), its scale 8 / 448: 392 lies between 384 and 416.
  const auto row = [](const Tensor& pages) { return to_doubles(pages[1][0].slice(0, 1, 2)); };
  EXPECT_EQ(row(a.k_pages), (Doubles{-384, 384, 288, 448}));
  EXPECT_EQ(row(a.v_pages), (Doubles{-448, 0, 224, 112}));
  EXPECT_FLOAT_EQ(elements<float>(a.k_scales)[3], 8.0F / 448);
  EXPECT_FLOAT_EQ(elements<float>(a.v_scales)[3], 2.0F / 448);
  EXPECT_EQ(to_doubles(a.k_pages[0]), Doubles(8, 0.0));
}

TEST(MoeRoute, SortsTokensByExpert) {
  Inputs in(kSeed);
  RoomyBench bench(2);
  // The gate is the identity: logits are x. Two groups of two experts, one pick each; one shared expert.
  const ops::MoeRoute a{
      .topk_ids = in.output({3, 2}, DType::kI32),
      .topk_weights = in.output({3, 2}),
      .offsets = in.output({6}, DType::kI32),
      .row_token = in.output({9}, DType::kI32),
      .row_weight = in.output({9}),
      .slot_row = in.output({3, 3}, DType::kI32),
      .x = converted<BF16>(in, {0, 0, 0, 0, 1, 2, 3, 3, 5, 1, 1, 5}, {3, 4}),
      .gate = converted<float>(in, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, {4, 4}),
      .router_scale = in.values(std::vector<float>{2, 1, 1, 1}),
      .num_groups = 2};
  ops::moe_route(bench.ctx, a);
  EXPECT_EQ(to_doubles(a.topk_ids), (Doubles{0, 2, 1, 2, 0, 3}));  // ties to the lowest index
  EXPECT_EQ(to_doubles(a.offsets), (Doubles{0, 2, 3, 5, 6, 9}));
  EXPECT_EQ(to_doubles(a.row_token), (Doubles{0, 2, 1, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(to_doubles(a.slot_row), (Doubles{0, 3, 6, 2, 4, 7, 1, 5, 8}));
  EXPECT_FLOAT_EQ(elements<float>(a.topk_weights)[0], 0.5F);  // 1/4, scaled by 2
  EXPECT_FLOAT_EQ(elements<float>(a.row_weight)[3], 0.25F);
  EXPECT_EQ(elements<float>(a.row_weight)[7], 1.0F);
}

TEST(DecodeInputs, StepsAcrossAPage) {
  Inputs in(kSeed);
  RoomyBench bench(1);
  const ops::DecodeInputs a{
      .kv_lens = in.values(std::vector<int32_t>{0, 15, 16, -1, -1}),
      .positions = in.output({5}, DType::kI32),
      .slots = in.output({5}, DType::kI32),
      .block_table = in.values(std::vector<int32_t>{3, -1, 2, -1, 0, 5, -1, -1, -1, -1}).view({5, 2}),
      .page_size = 16};
  ops::decode_inputs(bench.ctx, a);
  EXPECT_EQ(to_doubles(a.kv_lens), (Doubles{1, 16, 17, -1, -1}));
  EXPECT_EQ(to_doubles(a.positions), (Doubles{0, 15, 16, 0, 0}));
  EXPECT_EQ(to_doubles(a.slots), (Doubles{48, 47, 80, -1, -1})) << "idle rows write nothing";
  EXPECT_THROW(ops::decode_inputs(bench.ctx, a), ShapeError) << "the second sequence has no second page";
}

/// c of the small product below.
template <class T>
Doubles product(Inputs& in, bool silu) {
  RoomyBench bench(1);
  const bool scaled = dtype_of<T>() != DType::kBF16;
  // w: 16 rows of two, row n = (n, 1); a = (2, -1). p = 2n - 1.
  std::vector<float> w;
  for (int n = 0; n < 16; ++n) w.insert(w.end(), {static_cast<float>(n), 1});
  const ops::QuantMatmul m{.c = in.output({1, silu ? 8 : 16}, DType::kBF16),
                           .a = converted<T>(in, {9, 9, 2, -1}, {2, 2}),
                           .a_scale = scaled ? in.values(std::vector<float>{9, 0.5F}) : Tensor{},
                           .w = converted<T>(in, w, {16, 2}),
                           .w_scale = scaled ? in.values(std::vector<float>(16, 2.0F)) : Tensor{},
                           .row_ids = in.values(std::vector<int32_t>{1}),
                           .row_weight = in.values(std::vector<float>{0.5F}),
                           .silu_mul = silu};
  ops::quant_matmul(bench.ctx, m);
  return to_doubles(m.c);
}

TEST(QuantMatmul, ScalesGathersAndWeighs) {
  Inputs in(kSeed);
  Doubles expected;
  for (int n = 0; n < 16; ++n) expected.push_back((2 * n - 1) * 0.5);
  EXPECT_EQ(product<int8_t>(in, false), expected);
  EXPECT_EQ(product<FP8E4M3>(in, false), expected);
  EXPECT_EQ(product<BF16>(in, false), expected);
}

TEST(QuantMatmul, GateAndUpAlternateInBlocks) {
  static_assert(ops::gate_up_row(7, false) == 7 && ops::gate_up_row(7, true) == 15 &&
                ops::gate_up_row(8, false) == 16 && ops::gate_up_row(8, true) == 24);
  Inputs in(kSeed);
  for (const Doubles& c : {product<int8_t>(in, true), product<FP8E4M3>(in, true), product<BF16>(in, true)})
    for (int f = 0; f < 8; ++f) {
      const double gate = 2 * f - 1, up = 2 * (f + 8) - 1, exact = gate / (1 + std::exp(-gate)) * up / 2;
      EXPECT_NEAR(c[f], exact, std::abs(exact) * 0x1p-8);
    }
}

/// In tiles of every height, in several blocks of steps, grouped and gathered, with and without SiLU.
TEST(QuantMatmul, PackedWeightsGiveTheSameBits) {
  struct Dims {
    std::vector<int32_t> offsets;
    int64_t N, K;
    DType out;
    bool silu;
  };
  const DType f32 = DType::kF32, bf16 = DType::kBF16;
  std::vector<Dims> all{{{0, 9}, 16, 4, f32, false},
                        {{0, 30}, 96, 2600, f32, false},
                        {{0, 8}, 208, 1200, bf16, true},
                        {{0, 1, 8, 16, 16, 80, 145}, 192, 256, bf16, true},
                        {{0, 300, 300, 302, 832}, 160, 208, bf16, false}};
  for (const int32_t R : {0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 97, 205})
    all.push_back({{0, R}, 144, 260, f32, false});
  for (const Dims& d : all)
    for (const auto& impl : ops::quant_matmul_table().impls) {
      if (impl.device != DeviceKind::kCpu) continue;
      Inputs in(kSeed);
      const int64_t R = d.offsets.back(), G = static_cast<int64_t>(d.offsets.size()) - 1;
      const bool grouped = G > 1;
      const Tensor a = in.normal({R / 2 + 1, d.K}, 32, DType::kI8),
                   a_scale = in.uniform({R / 2 + 1}, 0, 0.01F);
      const Tensor ids = in.ints({R}, 0, static_cast<int32_t>(R / 2 + 1)), weight = in.uniform({R}, 0, 1);
      const Tensor w = in.normal(grouped ? Shape{G, d.N, d.K} : Shape{d.N, d.K}, 32, DType::kI8);
      const Tensor w_scale = in.uniform(grouped ? Shape{G, d.N} : Shape{d.N}, 0, 0.01F);
      const Tensor bias = in.normal({d.N}), offsets = in.values(d.offsets);
      const auto product = [&](const Tensor& weights, int threads) {
        const ops::QuantMatmul args{.c = in.output({R, d.silu ? d.N / 2 : d.N}, d.out),
                                    .a = a,
                                    .a_scale = a_scale,
                                    .w = weights,
                                    .w_scale = w_scale,
                                    .bias = grouped ? Tensor() : bias,
                                    .offsets = grouped ? offsets : Tensor(),
                                    .row_ids = ids,
                                    .row_weight = weight,
                                    .silu_mul = d.silu};
        if (!impl.supports(args).empty()) return Tensor();
        Bench(threads).run(ops::quant_matmul_table(), impl, args);
        return args.c;
      };
      const Tensor plain = product(w, 1);
      if (!plain) continue;
      Bench bench(2);
      const Tensor packed = ops::pack_quant_weight(bench.ctx, w);
      EXPECT_EQ(packed.layout == Layout::kPanels, cpu_info().avx512_vnni);
      if (impl.name == std::string_view("cpu.avx2") && packed.layout == Layout::kPanels) {
        EXPECT_FALSE(product(packed, 1)) << "packed for AVX-512";
        continue;
      }
      for (const int threads : {1, 2, 3})
        EXPECT_EQ(same_bits("c", product(packed, threads), plain), "")
            << impl.name << ", " << R << " rows, N=" << d.N << " K=" << d.K << ", " << threads << " threads";
    }
}

TEST(RandomFill, LooksLikeQuantisedNormalWeights) {
  Inputs in(kSeed);
  RoomyBench bench(2);
  constexpr int64_t kN = 100'000;
  const auto spread = [&](DType dtype, uint64_t seed) {
    const Tensor x = in.output({kN}, dtype);
    ops::random_fill(bench.ctx, {.x = x, .std = 0.02F, .seed = seed});
    double sum = 0, squares = 0;
    for (const double v : to_doubles(x)) sum += v, squares += v * v;
    // The mean of n draws is within five of its standard deviations.
    EXPECT_LE(std::abs(sum / kN), 5 * std::sqrt(squares / kN / kN)) << name_of(dtype);
    return std::sqrt(squares / kN);
  };
  // A variance's standard error is sqrt(2 / n); eight bits also round (a step's square over 12 for i8) and
  // clamp at four standard deviations (6e-5 of the draws).
  const double five_errors = 5 / std::sqrt(2.0 * kN);
  EXPECT_NEAR(spread(DType::kF32, 1), 0.02, 0.02 * five_errors);
  EXPECT_NEAR(spread(DType::kBF16, 2), 0.02, 0.02 * five_errors);
  EXPECT_NEAR(spread(DType::kI8, 3), 31.75, 31.75 * (five_errors + 1e-3));
  EXPECT_NEAR(spread(DType::kFP8E4M3, 4), 112, 112 * (five_errors + 2e-3));
  const Tensor a = in.output({100}), b = in.output({100});
  ops::random_fill(bench.ctx, {.x = a, .seed = 5});
  ops::random_fill(bench.ctx, {.x = b, .seed = 6});
  EXPECT_NE(same_bits("x", a, b), "");
}

TEST(ServingOps, RefuseWhatDoesNotFit) {
  Inputs in(kSeed);
  RoomyBench bench(1);
  ops::ResidualNorm norm{.x = in.normal({2, 8}), .weight = in.normal({8})};
  EXPECT_THROW(ops::residual_norm(bench.ctx, norm), ShapeError) << "no output";
  norm.normed = in.output({2, 8}, DType::kBF16);
  norm.rows = in.normal({3, 8}, 1, DType::kBF16);
  EXPECT_THROW(ops::residual_norm(bench.ctx, norm), ShapeError) << "rows without slot_row";
  norm.slot_row = in.values(std::vector<int32_t>{0, 3}).view({2, 1});
  EXPECT_THROW(ops::residual_norm(bench.ctx, norm), ShapeError) << "row 3 of 3";
  ops::QuantMatmul product{.c = in.output({2, 8}, DType::kBF16),
                           .a = in.normal({2, 4}, 9, DType::kI8),
                           .w = in.normal({8, 4}, 9, DType::kI8)};
  EXPECT_THROW(ops::quant_matmul(bench.ctx, product), ShapeError) << "no scales";
  product.a_scale = in.uniform({2}, 0, 1);
  product.w_scale = in.uniform({8}, 0, 1);
  ops::quant_matmul(bench.ctx, product);
  product.silu_mul = true;
  EXPECT_THROW(ops::quant_matmul(bench.ctx, product), ShapeError) << "eight rows hold no gate and up blocks";
  EXPECT_THROW(ops::random_fill(bench.ctx, {.x = in.zeros({3}, DType::kI32)}), ShapeError);
}

TEST(TokenLayer, RefusesWhatDoesNotFitAndLeavesTheCpuToTheOpsThatItJoins) {
  Inputs in(kSeed);
  RoomyBench bench(1);
  const auto i8 = [&](Shape shape) { return in.normal(shape, 9, DType::kI8); };
  const auto scale = [&](Shape shape) { return in.uniform(shape, 0, 1); };
  constexpr int64_t kD = 16, kA = 32, kN = 48, kE = 4, kF = 8, kSF = 24;
  const ops::TokenLayer good{.x = in.normal({1, kD}),
                             .qkv = in.output({1, kN}, DType::kBF16),
                             .attn_out = in.normal({1, kA}, 1, DType::kBF16),
                             .o_proj = i8({kD, kA}),
                             .o_scale = scale({kD}),
                             .norm = scale({kD}),
                             .gate = in.normal({kE, kD}),
                             .gate_up = i8({kE, 2 * kF, kD}),
                             .gate_up_scale = scale({kE, 2 * kF}),
                             .down = i8({kE, kD, kF}),
                             .down_scale = scale({kE, kD}),
                             .shared_gate_up = i8({2 * kSF, kD}),
                             .shared_gate_up_scale = scale({2 * kSF}),
                             .shared_down = i8({kD, kSF}),
                             .shared_down_scale = scale({kD}),
                             .next_norm = scale({kD}),
                             .next_qkv = i8({kN, kD}),
                             .next_scale = scale({kN}),
                             .experts_per_token = 2,
                             .num_groups = 2};
  EXPECT_FALSE(ops::has_token_layer(bench.ctx, good));
  const auto refusal_of = [&](const auto& change) {
    ops::TokenLayer bad = good;
    change(bad);
    return refusal<ShapeError>([&] { ops::token_layer(bench.ctx, bad); });
  };
  using Args = ops::TokenLayer;
  const auto says = [](const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  says(refusal_of([&](Args& a) { a.x = in.normal({2, kD}); }), "x: expected f32[T=1");
  says(refusal_of([&](Args& a) { a.down = i8({kE, kD, 2 * kF}); }), "twice as many rows as columns");
  says(refusal_of([&](Args& a) { a.shared_down = i8({kD, kF}); }), "twice as many rows as columns");
  says(refusal_of([&](Args& a) { a.shared_down_scale = {}; }), "weights and scales come together");
  says(refusal_of([&](Args& a) { a.gate = in.normal({kE + 2, kD}); }), "gate_up: expected i8[E=6");
  says(refusal_of([&](Args& a) { a.next_qkv = {}; }), "expected one of next_qkv and normed");
  says(refusal_of([&](Args& a) { a.next_scale = {}; }), "come together");
  says(refusal_of([&](Args& a) { a.experts_per_token = 3; }), "expected multiples of 2 groups");
}

}  // namespace
}  // namespace moge::test
