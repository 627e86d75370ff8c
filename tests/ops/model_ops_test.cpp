// What the cases of the op harness cannot say: errors, identities, and numbers of another program.
#include <gtest/gtest.h>

#include <functional>

#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/balance_loss.h"
#include "ops/combine.h"
#include "ops/embedding.h"
#include "ops/group_router.h"
#include "ops/harness.h"
#include "ops/matmul.h"
#include "ops/permute.h"
#include "ops/rope.h"
#include "refusal.h"

namespace moge::test {
namespace {

template <class Args>
void run_reference(Bench& bench, const OpTable<Args>& table, const Args& args) {
  bench.run(table, reference(table), args);
}

/// Each implementation of the table must throw a ShapeError that says `message`.
template <class Args>
void expect_all_refuse(const OpTable<Args>& table, const Args& args, const std::string& message) {
  for (const Impl<Args>& impl : table.impls) {
    if (impl.device != DeviceKind::kCpu) continue;
    SCOPED_TRACE(str(table.op, " ", impl.name));
    expect_refused<ShapeError>([&] { Bench(2).run(table, impl, args); }, message);
  }
}

/// A model plans its workspace for the most tokens of a batch and then sees fewer.
TEST(Workspace, OfManyRowsServesFewer) {
  ThreadPool pool(2);
  ExecContext ctx;
  ctx.pool = &pool;
  Inputs in(kSeed);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor w = in.zeros({64, 16, 640}, dtype), offsets = in.values(std::vector<int32_t>(65, 0));
    const auto bytes = [&](int64_t R, bool grouped, bool nn) {
      const Tensor wide = in.output({R, 640}), narrow = in.output({R, 16}), weight = grouped ? w : w[0];
      const Tensor groups = grouped ? offsets : Tensor();
      if (nn) {
        const ops::MatmulNN args{.c = wide, .a = narrow, .w = weight, .offsets = groups};
        return ops::matmul_nn_table().impls.front().workspace_bytes(ctx, args);
      }
      const ops::MatmulNT args{.c = narrow, .a = wide, .w = weight, .offsets = groups};
      return ops::matmul_nt_table().impls.front().workspace_bytes(ctx, args);
    };
    for (const bool grouped : {false, true})
      for (const bool nn : {false, true}) {
        int64_t before = 0;
        for (const int64_t R : {1, 70, 768, 769, 800, 4096}) {
          EXPECT_LE(before, bytes(R, grouped, nn)) << R << " rows";
          before = bytes(R, grouped, nn);
        }
      }
  }
}

TEST(IndexErrors, NameThePosition) {
  Inputs in(kSeed);
  expect_all_refuse(
      ops::embedding_fwd_table(),
      {.y = in.output({3, 4}), .weight = in.normal({5, 4}), .ids = in.values(std::vector<int32_t>{0, -1, 4})},
      "ids[1]: expected 0..4, got -1");
  expect_all_refuse(
      ops::embedding_bwd_table(),
      {.dweight = in.zeros({5, 4}), .dy = in.normal({2, 4}), .ids = in.values(std::vector<int32_t>{4, 5})},
      "ids[1]: expected 0..4, got 5");
  const Tensor ids = in.values(std::vector<int32_t>{0, 3, -2, 1}).view({2, 2});
  expect_all_refuse(ops::permute_fwd_table(),
                    {.offsets = in.output({5}, DType::kI32),
                     .row_token = in.output({4}, DType::kI32),
                     .row_weight = in.output({4}),
                     .slot_row = in.output({2, 2}, DType::kI32),
                     .topk_ids = ids,
                     .topk_weights = in.normal({2, 2})},
                    "topk_ids[1, 0]: expected 0..3, got -2");
  expect_all_refuse(ops::permute_bwd_table(),
                    {.dtopk_weights = in.output({2, 2}), .drow_weight = in.normal({4}), .slot_row = ids},
                    "slot_row[1, 0]: expected 0..3, got -2");
  expect_all_refuse(
      ops::combine_fwd_table(),
      {.y = in.output({2, 3}), .rows = in.normal({3, 3}), .slot_row = ids, .weights = {}, .add = {}},
      "slot_row[0, 1]: expected 0..2, got 3");
  expect_all_refuse(ops::expert_counts_table(),
                    {.counts = in.zeros({1, 3}, DType::kI32),
                     .topk_ids = ids,
                     .segments = in.values(std::vector<int32_t>{0, 2})},
                    "topk_ids[0, 1]: expected 0..2, got 3");
  // Ids that are checked four at a time.
  const Tensor five = in.values(std::vector<int32_t>{0, 1, 2, 3, 4, 0, 1, 2, -7, 4}).view({2, 5});
  expect_all_refuse(ops::permute_bwd_table(),
                    {.dtopk_weights = in.output({2, 5}), .drow_weight = in.normal({10}), .slot_row = five},
                    "slot_row[1, 3]: expected 0..9, got -7");
  expect_all_refuse(ops::expert_counts_table(),
                    {.counts = in.zeros({1, 5}, DType::kI32),
                     .topk_ids = five,
                     .segments = in.values(std::vector<int32_t>{0, 2})},
                    "topk_ids[1, 3]: expected 0..4, got -7");
  expect_all_refuse(ops::expert_counts_table(),
                    {.counts = in.zeros({1, 0}, DType::kI32),
                     .topk_ids = five,
                     .segments = in.values(std::vector<int32_t>{0, 2})},
                    "topk_ids[0, 0]: expected 0..-1, got 0");
  expect_all_refuse(ops::kv_write_table(),
                    {.k_pages = in.zeros({2, 1, 4, 3}),
                     .v_pages = in.zeros({2, 1, 4, 3}),
                     .k = in.normal({2, 1, 3}),
                     .v = in.normal({2, 1, 3}),
                     .slots = in.values(std::vector<int32_t>{7, 8})},
                    "slots[1]: expected a slot below P*PS=8, got 8");
}

TEST(IndexErrors, SegmentsRiseWithinTheRows) {
  Inputs in(kSeed);
  for (const std::vector<int32_t>& segments : {std::vector<int32_t>{0, 3, 2}, {0, 2, 5}, {-1, 2, 4}}) {
    expect_all_refuse(ops::balance_loss_table(),
                      {.loss = in.output({1}),
                       .dprobs = {},
                       .probs = in.uniform({4, 3}, 0, 1),
                       .counts = in.zeros({2, 3}, DType::kI32),
                       .segment_tokens = in.values(std::vector<int32_t>{2, 2}),
                       .segments = in.values(segments)},
                      "segments[");
  }
}

TEST(Embedding, ReadsPackedWeights) {
  Bench bench(2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Inputs in(kSeed);
    const Tensor weight = in.normal({80, 6}, 1, dtype);  // a panel of 64 rows and one of 16
    const Tensor ids = in.ints({100}, 0, 80);
    const Tensor strided = in.output({100, 6});
    const Tensor packed = in.output({100, 6});
    ops::embedding_fwd(bench.ctx, {.y = strided, .weight = weight, .ids = ids});
    const Tensor panels = ops::pack_weight(bench.ctx, weight);
    ops::embedding_fwd(bench.ctx, {.y = packed, .weight = panels, .ids = ids});
    EXPECT_EQ(same_bits("y", packed, strided), "") << name_of(dtype);
  }
}

TEST(GroupRouter, GroupsMustDivide) {
  Inputs in(kSeed);
  Bench bench(1);
  for (const int groups : {0, 3, 8}) {
    const ops::GroupRouterFwd args{.topk_ids = in.output({2, 4}, DType::kI32),
                                   .topk_weights = in.output({2, 4}),
                                   .probs = in.output({2, 16}),
                                   .lse = in.output({2}),
                                   .logits = in.normal({2, 16}),
                                   .router_scale = {},
                                   .num_groups = groups};
    EXPECT_THROW(ops::group_router_fwd(bench.ctx, args), ShapeError) << groups;
  }
}

TEST(Rope, InverseTurnsBack) {
  Inputs in(kSeed);
  Bench bench(2);
  const Tensor cos_sin = in.output({33, 64});
  run_reference<ops::RopeTable>(bench, ops::rope_table_table(),
                                {.cos_sin = cos_sin, .positions = in.ints({33}, 0, 1 << 20)});
  const Tensor x = in.normal({33, 3, 64});
  const std::vector<double> before = to_doubles(x);
  for (const bool inverse : {false, true})
    ops::rope(bench.ctx, {.x = x, .cos_sin = cos_sin, .inverse = inverse});
  // Two rotations of three roundings each, and cos^2 + sin^2 = 1 within two.
  EXPECT_EQ(compare("x", to_doubles(x), before, 8, 0x1p-24, {}), "");
}

/// Both losses are their own backward: dprobs and dlse are the exact derivatives of `loss`.
TEST(AuxiliaryLosses, GradientsMatchDifferences) {
  Inputs in(kSeed);
  Bench bench(2);
  const ops::BalanceLoss balance{.loss = in.output({1}),
                                 .dprobs = in.output({6, 8}),
                                 .probs = in.uniform({6, 8}, 0, 1),
                                 .counts = in.ints({2, 8}, 0, 9),
                                 .segment_tokens = in.values(std::vector<int32_t>{4, 2}),
                                 .segments = in.values(std::vector<int32_t>{0, 4, 6}),
                                 .topk = 2};
  const ops::ZLoss z{
      .loss = in.output({1}), .dlse = in.output({6}), .lse = in.normal({6}, 3), .weight = 0.1F};
  const auto expect_derivatives = [](const Tensor& x, const Tensor& dx, const std::function<double()>& loss) {
    loss();
    const std::vector<double> x0 = to_doubles(x);
    const std::vector<double> gradient = to_doubles(dx);
    for (size_t i = 0; i < x0.size(); ++i) {
      const double h = 0.0625;
      set_element(x, static_cast<int64_t>(i), x0[i] + h);
      const double above = loss();
      set_element(x, static_cast<int64_t>(i), x0[i] - h);
      const double below = loss();
      set_element(x, static_cast<int64_t>(i), x0[i]);
      // Linear or quadratic: no truncation, only the rounding of two losses and of x -+ h.
      EXPECT_NEAR(gradient[i], (above - below) / (2 * h), 4 * 0x1p-24 * std::abs(above) / h);
    }
  };
  expect_derivatives(balance.probs, balance.dprobs, [&] {
    run_reference(bench, ops::balance_loss_table(), balance);
    return to_doubles(balance.loss)[0];
  });
  expect_derivatives(z.lse, z.dlse, [&] {
    run_reference(bench, ops::z_loss_table(), z);
    return to_doubles(z.loss)[0];
  });
}

TEST(BalanceLoss, UniformRoutingGivesAlpha) {
  Inputs in(kSeed);
  Bench bench(1);
  const Tensor probs = in.zeros({8, 4});
  for (float& p : elements<float>(probs)) p = 0.25F;
  const Tensor loss = in.output({1});
  run_reference<ops::BalanceLoss>(bench, ops::balance_loss_table(),
                                  {.loss = loss,
                                   .dprobs = {},
                                   .probs = probs,
                                   .counts = in.values(std::vector<int32_t>{4, 4, 4, 4}).view({1, 4}),
                                   .segment_tokens = in.values(std::vector<int32_t>{8}),
                                   .segments = in.values(std::vector<int32_t>{0, 8}),
                                   .topk = 2,
                                   .weight = 0.5F});
  EXPECT_FLOAT_EQ(elements<float>(loss)[0], 0.5F);
}

/// Three steps of torch.optim.AdamW (torch 2.x, lr 0.1, betas (0.9, 0.95), weight_decay 0.1).
TEST(AdamW, StepsAsTorchDoes) {
  Inputs in(kSeed);
  Bench bench(1);
  ops::AdamW a{.param = in.values(std::vector<float>{1, -2, 0.5F, 0.001F}),
               .param_bf16 = {},
               .m = in.zeros({4}),
               .v = in.zeros({4}),
               .grad = {},
               .lr = 0.1F,
               .weight_decay = 0.1F};
  const std::vector<std::vector<float>> grads = {
      {0.1F, -3, 0, 1e-6F}, {0.2F, 2, 0, -1e-3F}, {-0.3F, 1, 0, 5}};
  const std::vector<std::vector<double>> params = {{0.889999986, -1.88, 0.495000005, -0.0980198979},
                                                   {0.785301447, -1.84667754, 0.490050018, -0.0236109048},
                                                   {0.784014523, -1.83462548, 0.485149533, -0.0856859013}};
  for (size_t i = 0; i < grads.size(); ++i) {
    a.grad = in.values(grads[i]);
    a.step = static_cast<int64_t>(i) + 1;
    ops::adamw(bench.ctx, a);
    // Some five roundings a step, of numbers up to the root mean square.
    EXPECT_EQ(compare("param", to_doubles(a.param), params[i], 5.0 * static_cast<double>(i + 1), 0x1p-24, {}),
              "");
  }
}

}  // namespace
}  // namespace moge::test
