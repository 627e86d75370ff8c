// A product beside the one before it (ops/quant_matmul.h) on a GPU: what follows finds both ended.
#include "ops/quant_matmul.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "core/backend.h"
#include "core/buffer.h"
#include "core/transfer.h"
#include "gpu/must_have_gpu.h"
#include "ops/quantize.h"
#include "ops/random_fill.h"

namespace moge::ops {
namespace {

/// A grouped product, a dense one of the same rows, and the quantisation of both, as in an MoE layer: in
/// turns `kLayers` times, each time with weights and results of its own, so that a result read too early is
/// not the right one of the time before.
class Layers {
 public:
  static constexpr int kLayers = 6;

  Layers(Backend& backend, DType dtype, int64_t rows) : backend_(backend), dtype_(dtype), rows_(rows) {
    Arena plan;
    allocate(plan);
    memory_ = Arena(plan.used_bytes(), "products", &backend);
    allocate(memory_);
    ExecContext ctx = context();
    uint64_t seed = 0;
    for (const Tensor& t : {a_, a_scale_}) random_fill(ctx, {.x = t, .std = 1e-2F, .seed = ++seed});
    for (const Layer& l : layers_)
      for (const Tensor& t : {l.grouped_w, l.dense_w, l.grouped_scale, l.dense_scale})
        random_fill(ctx, {.x = t, .std = 1e-2F, .seed = ++seed});
    std::vector<int32_t> offsets(kGroups + 1);
    for (int64_t g = 0; g <= kGroups; ++g)
      offsets[static_cast<size_t>(g)] = static_cast<int32_t>(rows * g / kGroups);
    upload(ctx, offsets_, offsets.data());
    synchronize(ctx, "operands");
  }

  /// All quantised results.
  std::vector<std::vector<std::byte>> run(bool beside) {
    ExecContext ctx = context();
    Workspace planner;
    ctx.workspace = &planner;
    ctx.planning = true;
    issue(ctx, beside);
    Workspace workspace(planner.planned_bytes(), &backend_);
    ctx.workspace = &workspace;
    ctx.planning = false;
    issue(ctx, beside);
    std::vector<std::vector<std::byte>> results;
    for (const Layer& l : layers_)
      for (const Tensor& t : {l.grouped_q, l.dense_q}) {
        download(ctx, results.emplace_back(static_cast<size_t>(t.bytes())).data(), t);
        std::vector<std::byte> other(static_cast<size_t>(t.bytes()), std::byte{0x55});
        upload(ctx, t, other.data());
        synchronize(ctx, "results");
      }
    return results;
  }

 private:
  static constexpr int64_t kGroups = 8, kK = 1344, kN = 2560;
  struct Layer {
    Tensor grouped_w, grouped_scale, dense_w, dense_scale, grouped, dense;
    Tensor grouped_q, grouped_q_scale, dense_q, dense_q_scale;
  };

  ExecContext context() { return {.device = {DeviceKind::kCuda, 0}, .backend = &backend_}; }
  void allocate(Arena& arena) {
    const auto f32 = [&](Shape shape) { return arena.alloc(DType::kF32, shape); };
    a_ = arena.alloc(dtype_, {rows_, kK});
    a_scale_ = f32({rows_});
    offsets_ = arena.alloc(DType::kI32, {kGroups + 1});
    for (Layer& l : layers_)
      l = {.grouped_w = arena.alloc(dtype_, {kGroups, kN, kK}),
           .grouped_scale = f32({kGroups, kN}),
           .dense_w = arena.alloc(dtype_, {kN, kK}),
           .dense_scale = f32({kN}),
           .grouped = arena.alloc(DType::kBF16, {rows_, kN}),
           .dense = arena.alloc(DType::kBF16, {rows_, kN}),
           .grouped_q = arena.alloc(dtype_, {rows_, kN}),
           .grouped_q_scale = f32({rows_}),
           .dense_q = arena.alloc(dtype_, {rows_, kN}),
           .dense_q_scale = f32({rows_})};
  }
  void issue(ExecContext& ctx, bool beside) {
    for (const Layer& l : layers_) {
      quant_matmul(ctx, {.c = l.grouped,
                         .a = a_,
                         .a_scale = a_scale_,
                         .w = l.grouped_w,
                         .w_scale = l.grouped_scale,
                         .offsets = offsets_});
      quant_matmul(ctx, {.c = l.dense,
                         .a = a_,
                         .a_scale = a_scale_,
                         .w = l.dense_w,
                         .w_scale = l.dense_scale,
                         .beside_previous = beside});
      quantize_rows(ctx, {.q = l.dense_q, .scale = l.dense_q_scale, .x = l.dense});
      quantize_rows(ctx, {.q = l.grouped_q, .scale = l.grouped_q_scale, .x = l.grouped});
    }
  }

  Backend& backend_;
  DType dtype_;
  int64_t rows_;
  Arena memory_;
  Tensor a_, a_scale_, offsets_;
  std::array<Layer, kLayers> layers_;
};

class GpuQuantMatmul : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (const std::string why = cuda_refusal(); !why.empty()) {
      ASSERT_FALSE(test::must_have_gpu()) << why;
      GTEST_SKIP() << why;
    }
  }
};

TEST_P(GpuQuantMatmul, GivesTheSameBitsBesideTheOneBefore) {
  for (const int64_t rows : {1, 40, 300, 3000}) {
    Layers layers(cuda_backend(), GetParam(), rows);
    const auto in_turns = layers.run(false), beside = layers.run(true);
    ASSERT_EQ(in_turns.size(), beside.size());
    for (size_t i = 0; i < in_turns.size(); ++i) {
      EXPECT_EQ(in_turns[i], beside[i]) << rows << " rows, result " << i;
      EXPECT_NE(in_turns[i], in_turns[(i + 2) % in_turns.size()]) << "every layer has results of its own";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, GpuQuantMatmul, testing::Values(DType::kI8, DType::kFP8E4M3),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace moge::ops
