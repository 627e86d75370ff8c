#include "sim/search.h"

#include <gtest/gtest.h>

#include <fstream>

#include "machines.h"
#include "refusal.h"
#include "spec/cost.h"
#include "temp_dir.h"

namespace moge::sim {
namespace {

using test::refusal;

constexpr const char* kSmall = R"(base = "pangu-pro-moe-72b-a16b"
shared_experts = 4
hidden_size = [4608, 5120]
num_hidden_layers = { min = 44, max = 52, step = 4 }
num_attention_heads = [40]
num_key_value_heads = [8]
num_experts = [64]
moe_intermediate_size = [1280, 1344, 1408]
parameters = { min = 60e9, max = 80e9 }
)";

SearchSpace load(const std::string& text) {
  const test::TempDir dir;
  std::ofstream(dir / "space.toml") << text;
  return load_search_space(dir / "space.toml", shipped_model);
}

std::vector<Platform> platforms() {
  return {{"ascend-800i-a2", shipped_device("ascend-800i-a2"), 4, 0.05},
          {"ascend-300i-duo", shipped_device("ascend-300i-duo"), 4, 0.1}};
}

const SearchOptions kOptions{.precision = {WeightFormat::kW8A8, KvFormat::k16}};

TEST(Search, ShapesAreTheGridWithinBounds) {
  const SearchSpace space = load(kSmall);
  const std::vector<Shape> all = shapes(space);
  EXPECT_EQ(std::count(all.begin(), all.end(), shape_of(space.base)), 1);
  for (const Shape& shape : all) {
    const spec::ModelConfig config = model_of(space, shape);
    EXPECT_NO_THROW(config.validate("shape"));
    EXPECT_GE(spec::parameters(config), 60'000'000'000);
    EXPECT_LE(spec::parameters(config), 80'000'000'000);
    EXPECT_EQ(config.num_shared_experts(), 4);
  }
  EXPECT_EQ(model_of(space, shape_of(space.base)), space.base);
  EXPECT_EQ(shapes(load_search_space(kConfigs + "search/report.toml", shipped_model)).size(), 16798U);
}

TEST(Search, SameResultsForAnyNumberOfThreads) {
  const SearchSpace space = load(kSmall);
  const std::vector<Shape> all = shapes(space);
  const auto n = static_cast<int64_t>(all.size());
  ThreadPool one(1);
  ThreadPool three(3);
  const auto a = evaluate_shapes(space, all, 0, n, platforms(), kOptions, one);
  const auto b = evaluate_shapes(space, all, 0, n, platforms(), kOptions, three);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].score(), b[i].score());
    EXPECT_EQ(a[i].index, static_cast<int64_t>(i));
    EXPECT_GT(a[i].score(), 0);
  }
}

TEST(Search, FrontIsWhatNothingDominates) {
  const SearchSpace space = load(kSmall);
  const std::vector<Shape> all = shapes(space);
  ThreadPool pool(1);
  const auto results =
      evaluate_shapes(space, all, 0, static_cast<int64_t>(all.size()), platforms(), kOptions, pool);
  constexpr int64_t kFloor = 48;
  const std::vector<size_t> front = pareto_front(results, kFloor);
  ASSERT_FALSE(front.empty());
  const auto beats = [&](const ShapeResult& x, const ShapeResult& y) {
    return x.active_parameters > y.active_parameters &&
           x.platforms[0].tokens_per_s_per_card > y.platforms[0].tokens_per_s_per_card &&
           x.platforms[1].tokens_per_s_per_card > y.platforms[1].tokens_per_s_per_card;
  };
  for (const size_t f : front) {
    EXPECT_GE(results[f].shape.num_hidden_layers, kFloor);
    for (const ShapeResult& r : results)
      if (r.shape.num_hidden_layers >= kFloor) {
        EXPECT_FALSE(beats(r, results[f])) << r.shape.str();
      }
  }
  const Rank rank = rank_of(results, shape_of(space.base), 0.05);
  EXPECT_GE(rank.rank, 1);
  EXPECT_LE(rank.rank, rank.of);
  EXPECT_EQ(rank_of(results, Shape{}, 0.05).rank, 0);
}

/// Throughput alone prefers shallow models: why a depth floor is an assumption that must be stated.
TEST(Search, FewerLayersAreFaster) {
  const SearchSpace space = load(kSmall);
  Shape shape = shape_of(space.base);
  const double deep = evaluate_shape(space, shape, 0, platforms(), kOptions).score();
  shape.num_hidden_layers = 40;
  EXPECT_GT(evaluate_shape(space, shape, 0, platforms(), kOptions).score(), deep);
}

TEST(Search, RefusesBrokenSpaces) {
  const auto complaint = [](const std::string& from, const std::string& to) {
    std::string text = kSmall;
    text.replace(text.find(from), from.size(), to);
    return refusal([&] { load(text); });
  };
  EXPECT_NE(complaint("[4608, 5120]", "[]").find("empty range"), std::string::npos);
  EXPECT_NE(complaint("step = 4", "step = 0").find("step"), std::string::npos);
  EXPECT_NE(complaint("[4608, 5120]", "[-1]").find("whole numbers from 1"), std::string::npos);
  EXPECT_NE(complaint("min = 60e9", "min = 90e9").find("above max"), std::string::npos);
  EXPECT_NE(complaint("hidden_size", "hiden_size").find("hidden_size"), std::string::npos);
  EXPECT_NE(complaint("{ min = 44, max = 52, step = 4 }", "{ min = 1, max = 1000000, step = 1 }")
                .find("(accepted)"),
            std::string::npos);
  EXPECT_NE(complaint("pangu-pro-moe-72b-a16b", "dense-32b").find("mixture of experts"), std::string::npos);
  std::string none = kSmall;
  none.replace(none.find("min = 60e9, max = 80e9"), 22, "min = 1, max = 2");
  EXPECT_NE(refusal<UsageError>([&] { shapes(load(none)); }).find("no shape"), std::string::npos);
}

}  // namespace
}  // namespace moge::sim
