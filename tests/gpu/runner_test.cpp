// The Runner on a GPU against itself (batches, pieces, graphs: the same bits) and against the CPU's reference
// ops (logits within rounding, the same greedy text).
#include "engine/runner.h"

#include <map>
#include <numbers>

#include "engine/runner_cases.h"
#include "gpu/must_have_gpu.h"
#include "model/memory_fit.h"
#include "model/serving_random.h"

namespace moge::engine {
namespace {

struct Format {
  const char* model;
  DType weights, kv;
};
std::string name_of_format(const testing::TestParamInfo<Format>& info) {
  return str(info.param.model, "_", name_of(info.param.weights), "_", name_of(info.param.kv));
}

class GpuRunner : public testing::TestWithParam<Format> {
 protected:
  void SetUp() override {
    if (const std::string why = cuda_refusal(); !why.empty()) {
      ASSERT_FALSE(test::must_have_gpu()) << why;
      GTEST_SKIP() << why;
    }
    const Format& f = GetParam();
    write_checkpoint(temp_ / "model", f.model);
    gpu_ = {{.device = {DeviceKind::kCuda, 0}, .pool = &pool_, .backend = &cuda_backend()},
            temp_ / "model",
            f.weights,
            f.kv};
    cpu_ = {{.pool = &pool_}, temp_ / "model", f.weights, f.kv};
  }
  test::TempDir temp_;
  ThreadPool pool_{0};
  RunnerCase gpu_, cpu_;
};

TEST_P(GpuRunner, GivesTheSameBitsHoweverAPromptIsCut) {
  check_chunked_prefill(gpu_, 150);
}

TEST_P(GpuRunner, GivesTheSameBitsWhateverElseIsInTheBatch) {
  check_batch_invariance(gpu_, 9);
  check_batch_invariance(gpu_, 256);
}

class OpCounter : public OpObserver {
 public:
  void before(const char* op) override { ++calls[op]; }
  void after(const char*) override {}
  std::map<std::string, int64_t> calls;
};

/// So that the comparisons of one sequence with batches compare two ways of computing it.
TEST_P(GpuRunner, JoinsTheLayersOfOneTokenOfAnInt8Moge) {
  OpCounter counter;
  gpu_.ctx.observer = &counter;
  Runner runner = gpu_.make(1, false);
  greedy(runner, prompt(40, 1), 1);
  const bool joins = runner.config().is_moe() && GetParam().weights == DType::kI8;
  EXPECT_EQ(counter.calls["token_layer"], joins ? runner.config().num_hidden_layers : 0);
}

TEST_P(GpuRunner, GivesTheSameBitsAsAGraphAndOpByOp) {
  Runner graph = gpu_.make(1, true), eager = gpu_.make(1, false);
  const Trace a = greedy(graph, prompt(40, 1), 50), b = greedy(eager, prompt(40, 1), 50);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.logits, b.logits);
}

TEST_P(GpuRunner, GivesTheSameBitsInBatchesThatChange) {
  check_comings_and_goings(gpu_);
}

const double kFlips = std::sqrt(2 / std::numbers::pi);  // E|d| of normal differences of rms 1

/// Both sides round at the same places and sum in other orders. In a row's first layer and without other keys
/// hardly a rounding flips (sums are exact in int8, else off by some 2e-6 of steps of 2^-8), and what flips
/// has few roundings behind it: the median is below one flipped bf16 element of a row of D for int8, and for
/// the rest below all of them flipped. Not quantised at all the error is 1.7e-2 to 8.8e-2 (so much are the
/// CPU's own logits off that it computes with bf16 weights and cache).
TEST_P(GpuRunner, AgreesWithTheCpuInOneLayer) {
  const std::filesystem::path dir = temp_ / "one";
  write_checkpoint(dir, str("one_", GetParam().model));
  gpu_.dir = cpu_.dir = dir;
  Runner gpu = gpu_.make(1), cpu = cpu_.make(1);
  const double width = static_cast<double>(cpu.config().hidden_size);
  double bound = GetParam().weights == DType::kI8 ? 0x1p-8 / std::sqrt(width) : 0x1p-8;
  if (GetParam().weights == DType::kFP8E4M3) {
    bound = 0x1p-13;
    for (int i = 0; i < 3; ++i) bound = std::sqrt(kFlips * 0x1p-3 * bound);
  }
  const double error = median_error_of_one_token(gpu, cpu);
  RecordProperty("median_error", str(error));
  EXPECT_LE(error, bound);
}

/// Over layers and keys roundings flip, and each flip is the next rounding's difference: steps of s make a
/// difference d of their inputs one of s with probability d / s, so a mean square of s d. Normal differences
/// of rms e become sqrt(sqrt(2 / pi) s e), and after some ten roundings a layer e is near sqrt(2 / pi) s
/// whatever it was at first. The bound for bf16 is twice that, for rows with outliers. For eight bits it is
/// the error of the quantisation on this text, which has the weights' besides, where both sides agree: the
/// flips of the rows' are at most sqrt(2) of theirs. A GPU that did not quantise would have that error too,
/// but lie near the CPU's bf16 logits, so it has to be nearer to the quantised ones.
TEST_P(GpuRunner, AgreesWithTheCpuOverAText) {
  if (const std::string model = GetParam().model; model == "moge" || model == "wide")
    GTEST_SKIP() << "rounding may flip a selection; clear_" << model << " is compared";
  RunnerCase plain = cpu_;
  plain.weights = plain.kv = DType::kBF16;
  Runner gpu = gpu_.make(1), cpu = cpu_.make(1), bf16 = plain.make(1);
  const std::vector<int32_t> tokens = prompt(100, 1);
  const Trace want = greedy(cpu, tokens, 200);
  const std::vector<int32_t> text(want.tokens.begin(), want.tokens.end() - 1);
  const Trace got = follow(gpu, tokens, text), unquantised = follow(bf16, tokens, text);
  const double error = mean_error(got, want), quantisation = mean_error(unquantised, want);
  const double bound = quantisation > 0 ? quantisation : 2 * kFlips * 0x1p-7;
  EXPECT_LE(error, bound);
  if (quantisation > 0) {
    EXPECT_LT(error, mean_error(got, unquantised));
  }
  const TokensApart apart = tokens_apart(got, want, bound);
  EXPECT_LE(apart.differ, apart.expected + 3 * std::sqrt(apart.expected));
  EXPECT_EQ(apart.unexplained, 0);
  RecordProperty("mean_error", str(error));
  RecordProperty("bound", str(bound));
  RecordProperty("tokens_apart", apart.differ);
}

class GpuRunnerMemory : public GpuRunner {};

/// With every graph recorded that a runner may have. Of what other processes take the test knows nothing, so
/// it has to be the only one on the GPU (script/test, stage "memory").
TEST_P(GpuRunnerMemory, KeepsToItsMemoryPlan) {
  if (std::getenv("GTEST_TOTAL_SHARDS")) GTEST_SKIP() << "other processes share the GPU";
  constexpr int64_t kRows = 220;  // 16 + 26 sizes of graphs
  ExecContext ctx = gpu_.ctx;
  gpu_.make(1);  // what a first use of the device takes is not a runner's
  const int64_t free = model::free_bytes(ctx);
  for (const int64_t layers : {1, 3, 48}) {
    spec::ModelConfig config = runner_model(GetParam().model);
    config.num_hidden_layers = layers;
    Runner runner(ctx, model::random_serving_model(ctx, config, GetParam().weights, layers, 1),
                  gpu_.limits(kRows));
    int64_t least = free;
    for (int64_t row = 0; row < kRows; ++row) {
      const std::vector<int32_t> tokens = prompt(3, static_cast<uint64_t>(row));
      const std::span<const int32_t> piece(tokens);
      runner.start(row, kRows + 4, {.temperature = 0});
      runner.prefill(row, {&piece, 1});
      runner.decode();
      runner.tokens(1);
      least = std::min(least, model::free_bytes(ctx));
    }
    RecordProperty(str("taken_of_", layers, "_layers"), str(free - least));
    RecordProperty(str("plan_of_", layers, "_layers"), str(runner.memory_plan().total()));
    EXPECT_LE(free - least, runner.memory_plan().total()) << layers << " layers";
  }
}

TEST(GpuPlan, SaysWhatDoesNotFit) {
  if (const std::string why = cuda_refusal(); !why.empty()) {
    ASSERT_FALSE(test::must_have_gpu()) << why;
    GTEST_SKIP() << why;
  }
  ThreadPool pool(0);
  const ExecContext ctx{.device = {DeviceKind::kCuda, 0}, .pool = &pool, .backend = &cuda_backend()};
  spec::ModelConfig huge = small_moge();
  huge.num_hidden_layers = 1 << 16;
  try {
    Runner::plan_that_fits(ctx, huge, DType::kI8,
                           {.max_sequences = 1, .context = 256, .max_batch_tokens = 16},
                           model::free_bytes(ctx));
    FAIL() << "a plan of that size cannot fit";
  } catch (const OutOfMemoryError& e) {
    const std::string what = e.what();
    EXPECT_NE(what.find("weights"), std::string::npos) << what;
    EXPECT_NE(what.find("would fit"), std::string::npos) << what;
  }
}

INSTANTIATE_TEST_SUITE_P(
    , GpuRunner,
    testing::Values(
        Format{"every_expert", DType::kI8, DType::kBF16}, Format{"every_expert", DType::kFP8E4M3, DType::kI8},
        Format{"every_expert", DType::kBF16, DType::kFP8E4M3}, Format{"moge", DType::kI8, DType::kBF16},
        Format{"moge", DType::kI8, DType::kI8}, Format{"none_shared", DType::kI8, DType::kBF16},
        Format{"wide", DType::kI8, DType::kI8}, Format{"moge", DType::kFP8E4M3, DType::kFP8E4M3},
        Format{"moge", DType::kBF16, DType::kBF16}, Format{"every_expert", DType::kI8, DType::kF16},
        Format{"clear_moge", DType::kI8, DType::kI8}, Format{"clear_moge", DType::kI8, DType::kBF16},
        Format{"clear_moge", DType::kFP8E4M3, DType::kFP8E4M3},
        Format{"clear_moge", DType::kBF16, DType::kBF16}, Format{"clear_wide", DType::kI8, DType::kI8},
        Format{"dense", DType::kI8, DType::kI8}, Format{"dense", DType::kBF16, DType::kBF16}),
    name_of_format);

INSTANTIATE_TEST_SUITE_P(, GpuRunnerMemory,
                         testing::Values(Format{"moge", DType::kI8, DType::kI8},
                                         Format{"clear_wide", DType::kI8, DType::kI8},
                                         Format{"every_expert", DType::kFP8E4M3, DType::kI8},
                                         Format{"dense", DType::kBF16, DType::kBF16}),
                         name_of_format);

}  // namespace
}  // namespace moge::engine
