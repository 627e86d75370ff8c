// Generation over a Runner's row: here the Runner is the CPU's, on a GPU the same code drives the device.
#include "engine/device_sequence.h"

#include <set>

#include "engine/generator.h"
#include "engine/runner_cases.h"

namespace moge::engine {
namespace {

const std::atomic<bool> kNever{false};
const auto kGoOn = [](int32_t) { return true; };

class DeviceSequenceTest : public testing::Test {
 protected:
  void SetUp() override { write_checkpoint(temp_ / "dense", "dense"); }
  Generator open() {
    return Generator(std::make_unique<DeviceSequence>(
        ctx_,
        model::load_serving_model(ctx_, temp_ / "dense", spec::load_model_config(temp_ / "dense"), DType::kI8,
                                  {}),
        RunnerConfig{.context = 100, .max_batch_tokens = 16, .penalties = true}));
  }
  test::TempDir temp_;
  ThreadPool pool_{2};
  ExecContext ctx_{.pool = &pool_};
};

TEST_F(DeviceSequenceTest, GeneratesWhatTheRunnerDoes) {
  Runner runner = RunnerCase{ctx_, temp_ / "dense", DType::kI8, DType::kBF16}.make(1);
  const std::vector<int32_t> tokens = prompt(40, 1);
  const Trace want = greedy(runner, tokens, 9);
  Generator generator = open();
  const Generation got =
      generator.generate(tokens, {.sampling = {.temperature = 0}, .max_tokens = 10}, kGoOn, kNever);
  EXPECT_EQ(got.tokens, want.tokens);
  EXPECT_EQ(got.cached_tokens, 0);
  EXPECT_EQ(got.decode_steps, 9);
  EXPECT_GT(got.decode_bytes, 0);
}

TEST_F(DeviceSequenceTest, ReusesThePrefixThatItKnows) {
  const GenerationParams params{.sampling = {.temperature = 1, .seed = 5}, .max_tokens = 8};
  std::vector<int32_t> conversation = prompt(20, 1);
  Generator generator = open();
  const Generation first = generator.generate(conversation, params, kGoOn, kNever);
  conversation.insert(conversation.end(), first.tokens.begin(), first.tokens.end());
  conversation.push_back(7);
  const Generation second = generator.generate(conversation, params, kGoOn, kNever);
  EXPECT_EQ(second.cached_tokens, 20 + 7) << "all but the last drawn token were appended";
  Generator fresh = open();
  EXPECT_EQ(fresh.generate(conversation, params, kGoOn, kNever).tokens, second.tokens);
}

TEST_F(DeviceSequenceTest, ARepetitionPenaltyMakesTokensNew) {
  const std::vector<int32_t> tokens = prompt(20, 1);
  Generator generator = open();
  const Generation got = generator.generate(
      tokens, {.sampling = {.temperature = 0, .repetition_penalty = 1e6}, .max_tokens = 30}, kGoOn, kNever);
  std::set<int32_t> seen(tokens.begin(), tokens.end());
  for (const int32_t token : got.tokens) EXPECT_TRUE(seen.insert(token).second) << token;
}

TEST_F(DeviceSequenceTest, APresenceOrFrequencyPenaltyMakesAnAnswersTokensDiffer) {
  for (const SamplingParams& sampling : {SamplingParams{.temperature = 0, .presence_penalty = 1e6},
                                         SamplingParams{.temperature = 0, .frequency_penalty = 1e6}}) {
    Generator generator = open();
    const Generation got =
        generator.generate(prompt(20, 1), {.sampling = sampling, .max_tokens = 30}, kGoOn, kNever);
    const std::set<int32_t> seen(got.tokens.begin(), got.tokens.end());
    EXPECT_EQ(seen.size(), 30U);
  }
}

}  // namespace
}  // namespace moge::engine
