// The Runner on the CPU: what it promises, its agreement with the session's plain forward, its refusals.
#include "engine/runner.h"

#include "engine/runner_cases.h"
#include "engine/session.h"
#include "refusal.h"

namespace moge::engine {
namespace {

class RunnerTest : public testing::Test {
 protected:
  /// The directory of a model, written at first use: a test does not pay for those it has no use for.
  std::filesystem::path model(const std::string& name) {
    const std::filesystem::path dir = temp_ / name;
    if (!std::filesystem::exists(dir)) write_checkpoint(dir, name);
    return dir;
  }
  RunnerCase moge(DType weights = DType::kI8, DType kv = DType::kBF16) {
    return {{.pool = &pool_}, model("moge"), weights, kv};
  }
  RunnerCase dense() { return {{.pool = &pool_}, model("dense"), DType::kI8, DType::kI8}; }
  test::TempDir temp_;
  ThreadPool pool_{2};
};

TEST_F(RunnerTest, GivesTheSameBitsHoweverAPromptIsCut) {
  check_chunked_prefill(moge(), 70);
  check_chunked_prefill(dense(), 70);
}

TEST_F(RunnerTest, GivesTheSameBitsWhateverElseIsInTheBatch) {
  check_batch_invariance(moge(), 5);
  check_batch_invariance(dense(), 5);
}

TEST_F(RunnerTest, GivesTheSameBitsInBatchesThatChange) {
  check_comings_and_goings(moge());
  check_comings_and_goings(dense());
}

/// Serving rounds to bf16 (or eight bits) where the session keeps fp32: about ten roundings a layer, which
/// add up like a random walk when routing stays the same.
TEST_F(RunnerTest, AgreesWithTheSession) {
  ExecContext ctx{.pool = &pool_};
  const std::vector<int32_t> tokens = prompt(60, 1);
  for (const char* name : {"every_expert", "none_shared", "dense"}) {
    const std::filesystem::path dir = model(name);
    Session session({.pool = &pool_}, model::load_model(ctx, dir, spec::load_model_config(dir), DType::kBF16),
                    {.context = 100});
    session.append(tokens);
    const Tensor logits = session.logits();
    const std::span<float> values = elements<float>(logits);
    const std::vector<float> want(values.begin(), values.end());
    // Unit roundoff of a row's coarsest format: bf16 2^-9 relative; eight bits of the row's largest element,
    // which is some 3.5 times the root mean square of such a row.
    const auto bound = [](double eps) { return 2 * eps * std::sqrt(10.0 * 3); };
    for (const auto& [dtype, eps] :
         {std::pair{DType::kBF16, 0x1p-9}, {DType::kI8, 3.5 / 254}, {DType::kFP8E4M3, 0x1p-4}}) {
      Runner runner = RunnerCase{{.pool = &pool_}, model(name), dtype, DType::kBF16}.make(1);
      const Trace got = greedy(runner, tokens, 0);
      EXPECT_LE(relative_error(got.logits[0], want), bound(eps)) << name << " " << name_of(dtype);
      EXPECT_GT(relative_error(got.logits[0], want), 0) << "these are different computations";
    }
  }
}

TEST_F(RunnerTest, SequencesComeAndGo) {
  const RunnerCase c = moge();
  Runner alone = c.make(1);
  const Trace want = greedy(alone, prompt(30, 5), 4);
  Runner runner = c.make(2);
  EXPECT_EQ(greedy(runner, prompt(90, 4), 4).tokens.size(), 5U);
  EXPECT_EQ(greedy(runner, prompt(30, 5), 4).logits, want.logits) << "in the pages of a sequence before it";
  EXPECT_EQ(runner.length(0), 0);
}

/// More rows without a sequence than a page has slots: on several threads they must not write to the same.
TEST_F(RunnerTest, LeavesIdleRowsAlone) {
  const std::vector<int32_t> tokens = prompt(20, 1);
  Runner alone = moge().make(1);
  const Trace want = greedy(alone, tokens, 2);
  Runner runner = moge().make(130);
  runner.start(129, 30, {.temperature = 0});
  prefill_in_pieces(runner, 129, tokens, 256);
  for (size_t step = 1; step < want.logits.size(); ++step) {
    runner.decode();
    EXPECT_EQ(logits_of(runner, 129), want.logits[step]) << "step " << step;
  }
}

TEST_F(RunnerTest, RefusesWhatDoesNotFit) {
  Runner runner = moge().make(1);
  EXPECT_NE(test::refusal<RequestError>([&] { runner.start(0, 601, {}); }).find("the context holds 600"),
            std::string::npos);
  runner.start(0, 10, {.temperature = 0});
  const std::vector<int32_t> tokens = prompt(11, 1), unknown{1, 2, 3, 500};
  const std::span<const int32_t> too_long(tokens), bad(unknown);
  EXPECT_NE(test::refusal<RequestError>([&] {
              runner.prefill(0, {&bad, 1});
            }).find("token 500"),
            std::string::npos);
  EXPECT_NE(test::refusal<RequestError>([&] {
              runner.prefill(0, {&too_long, 1});
            }).find("started for 10 tokens"),
            std::string::npos);
  EXPECT_EQ(runner.length(0), 0);
  const ExecContext ctx{.pool = &pool_};
  EXPECT_NE(test::refusal<UsageError>([&] {
              Runner::plan(ctx, small_moge(), DType::kI8, {.kv_dtype = DType::kF32});
            }).find("expected bf16, f16, i8 or fp8_e4m3"),
            std::string::npos);
  for (const DType weights : {DType::kF16, DType::kF32})
    EXPECT_NE(test::refusal<UsageError>([&] {
                Runner::plan(ctx, small_moge(), weights, {});
              }).find("expected i8, fp8_e4m3 or bf16"),
              std::string::npos);
}

/// A pass that is refused for one of its rows has changed none.
TEST_F(RunnerTest, LeavesSequencesAsTheyWereWhenItRefuses) {
  Runner alone = moge().make(1);
  const Trace want = greedy(alone, prompt(9, 1), 2);
  Runner runner = moge().make(2);
  const std::vector<int32_t> tokens = prompt(9, 1), other = prompt(9, 2), unknown{1, 2, 500};
  runner.start(0, 12, {.temperature = 0});
  runner.start(1, 10, {.temperature = 0});
  const std::vector<std::span<const int32_t>> bad{tokens, unknown}, good{tokens, other};
  EXPECT_THROW(runner.prefill(0, bad), RequestError);
  EXPECT_EQ(runner.length(0), 0);
  runner.prefill(0, good);
  EXPECT_EQ(runner.tokens(1)[0], want.tokens[0]);
  runner.decode();
  for (int i = 0; i < 2; ++i)  // row 1 is full
    EXPECT_NE(test::refusal<RequestError>([&] { runner.decode(); }).find("row 1: the sequence is full"),
              std::string::npos);
  EXPECT_EQ(runner.length(0), 10);
  runner.stop(1);
  runner.decode();
  EXPECT_EQ(runner.tokens(1)[0], want.tokens[2]);
}

TEST_F(RunnerTest, AllocatesWhatItPlanned) {
  const RunnerCase c = moge();
  const Runner runner = c.make(3);
  const RunnerPlan plan = Runner::plan(c.ctx, small_moge(), DType::kI8, runner.limits());
  EXPECT_EQ(plan.total(), runner.memory_plan().total());
  EXPECT_EQ(plan.total(),
            Runner::plan_that_fits(c.ctx, small_moge(), DType::kI8, runner.limits(), plan.total()).total());
  EXPECT_GT(plan.workspace, 0);
}

TEST_F(RunnerTest, SaysWhatDoesNotFitBeforeItAllocates) {
  const ExecContext ctx{.pool = &pool_};
  RunnerConfig limits{.max_sequences = 4, .context = 256, .max_batch_tokens = 16};
  const auto refusal = [&](int64_t free) {
    return test::refusal<OutOfMemoryError>(
        [&] { Runner::plan_that_fits(ctx, small_moge(), DType::kI8, limits, free); });
  };
  const int64_t total = Runner::plan(ctx, small_moge(), DType::kI8, limits).total();
  EXPECT_EQ(refusal(total), "(accepted)");
  const std::string fewer = refusal(total - 1);
  EXPECT_TRUE(fewer.starts_with("the plan does not fit in the CPU's memory: weights ")) << fewer;
  EXPECT_TRUE(fewer.ends_with(" too few for the KV cache. At most 3 sequences of 256 tokens would fit"))
      << fewer;
  // Fewer sequences have no fuller passes than all of their tokens.
  const auto total_of = [&](int64_t sequences, int64_t context, int64_t batch_tokens) {
    return Runner::plan(ctx, small_moge(), DType::kI8,
                        {.max_sequences = sequences, .context = context, .max_batch_tokens = batch_tokens})
        .total();
  };
  limits.max_batch_tokens = 4 * 256;
  EXPECT_TRUE(refusal(total_of(2, 256, 2 * 256)).ends_with("At most 2 sequences of 256 tokens would fit"));
  const std::string shorter = refusal(total_of(1, 100, 100));
  EXPECT_TRUE(shorter.ends_with("At most a context of 100 tokens would fit")) << shorter;
  const std::string none = refusal(1000);
  EXPECT_TRUE(none.ends_with(" too few for the weights. Not even a context of 1 token would fit")) << none;
  // Not even one sequence of one token has room beside three layers; two layers of all that was asked for do.
  const auto layers = [&](int64_t n) {
    spec::ModelConfig c = small_moge();
    c.num_hidden_layers = n;
    return c;
  };
  limits = {.max_batch_tokens = 1};
  limits.context = 1;
  const int64_t two = Runner::plan(ctx, layers(2), DType::kI8, limits).total();
  const std::string cut = test::refusal<OutOfMemoryError>(
      [&] { Runner::plan_that_fits(ctx, layers(3), DType::kI8, limits, two, Runner::Offer::kLayersToo); });
  EXPECT_TRUE(cut.ends_with("At most 2 of 3 layers would fit")) << cut;
  EXPECT_EQ(cut.find("workspace"), std::string::npos) << "the tensors alone are too large";
}

}  // namespace
}  // namespace moge::engine
