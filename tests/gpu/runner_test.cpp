// The Runner on a GPU against itself (batches, pieces, graphs: the same bits) and against the CPU's reference
// ops (logits within rounding, the same greedy text).
#include "engine/runner.h"

#include <map>

#include "engine/runner_cases.h"
#include "model/memory_fit.h"

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
    if (const std::string why = cuda_refusal(); !why.empty()) GTEST_SKIP() << why;
    const Format& f = GetParam();
    write_checkpoint(temp_ / "model", runner_model(f.model));
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

/// The largest relative error of a row of logits that rounding explains. Both sides round at the same places;
/// sums in another order move a value by some fp32 roundoffs, which flips a rounding to the weights' or the
/// cache's format now and then, by one unit of that format (twice its roundoff). A layer rounds ten times;
/// errors add up like a random walk.
double bound(const Format& f, int64_t num_layers) {
  const auto eps = [](DType dtype) {
    return dtype == DType::kI8 ? 3.5 / 254 : dtype == DType::kFP8E4M3 ? 0x1p-4 : 0x1p-9;
  };
  return 2 * std::max(eps(f.weights), eps(f.kv)) * std::sqrt(10.0 * static_cast<double>(num_layers));
}

TEST_P(GpuRunner, AgreesWithTheCpu) {
  if (const std::string model = GetParam().model; model == "moge" || model == "wide")
    GTEST_SKIP() << "rounding may flip a selection; every_expert is compared";
  Runner gpu = gpu_.make(1), cpu = cpu_.make(1);
  const std::vector<int32_t> tokens = prompt(100, 1);
  const Trace want = greedy(cpu, tokens, 200), got = greedy(gpu, tokens, 200);
  const double tolerance = bound(GetParam(), cpu.config().num_hidden_layers);
  for (size_t i = 0; i < want.tokens.size(); ++i) {
    double diff = 0, norm = 0;
    for (size_t v = 0; v < want.logits[i].size(); ++v) {
      diff += std::pow(double{got.logits[i][v]} - want.logits[i][v], 2);
      norm += std::pow(double{want.logits[i][v]}, 2);
    }
    ASSERT_LE(std::sqrt(diff / norm), tolerance) << "step " << i;
    if (got.tokens[i] == want.tokens[i]) continue;
    // Texts may part only where the two best logits were closer than the error of both.
    const std::vector<float>& row = want.logits[i];
    const double gap =
        double{row[static_cast<size_t>(want.tokens[i])]} - row[static_cast<size_t>(got.tokens[i])];
    const double rms = std::sqrt(norm / static_cast<double>(row.size()));
    ASSERT_LE(gap, 2 * tolerance * rms * std::sqrt(2.0)) << "step " << i;
    break;  // from here on they answer different texts
  }
}

TEST_P(GpuRunner, SaysWhatDoesNotFit) {
  const ExecContext& ctx = gpu_.ctx;
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
        Format{"dense", DType::kI8, DType::kI8}, Format{"dense", DType::kBF16, DType::kBF16}),
    name_of_format);

}  // namespace
}  // namespace moge::engine
