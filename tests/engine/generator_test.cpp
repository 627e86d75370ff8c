// When generation ends, what it reuses, and that its tokens depend on the request alone.
#include "engine/generator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "engine/session.h"
#include "engine/small_model.h"

namespace moge::engine {
namespace {

const std::atomic<bool> kNever{false};
const auto kGoOn = [](int32_t) { return true; };
const GenerationParams kGreedy{.sampling = {.temperature = 0}, .max_tokens = 20};

class GeneratorTest : public testing::Test {
 protected:
  std::unique_ptr<Generator> open(int64_t max_batch_tokens = 32, int64_t context = 64) {
    return std::make_unique<Generator>(
        std::make_unique<Session>(ExecContext{.pool = &pool_}, packable_model(pool_, DType::kBF16, true),
                                  SessionConfig{.context = context, .max_batch_tokens = max_batch_tokens}));
  }
  ThreadPool pool_{1};
  const std::vector<int32_t> prompt_{5, 99, 3, 42, 42, 7, 150, 11, 0, 63, 64};
};

TEST_F(GeneratorTest, GreedyTokensDoNotDependOnHowThePromptIsCut) {
  const Generation whole = open(32)->generate(prompt_, kGreedy, kGoOn, kNever);
  EXPECT_EQ(whole.tokens.size(), 20U);
  EXPECT_EQ(whole.finish, Finish::kMaxTokens);
  EXPECT_EQ(whole.decode_steps, 19);
  for (const int64_t piece : {1, 3, 4, 11})
    EXPECT_EQ(open(piece)->generate(prompt_, kGreedy, kGoOn, kNever).tokens, whole.tokens) << piece;
}

TEST_F(GeneratorTest, TokensDependOnTheSeed) {
  const auto draw = [&](uint64_t seed) {
    const GenerationParams params{.sampling = {.temperature = 1, .seed = seed}, .max_tokens = 20};
    return open()->generate(prompt_, params, kGoOn, kNever).tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST_F(GeneratorTest, ReusesThePrefixThatItKnows) {
  const auto generator = open();
  const Generation first = generator->generate(prompt_, kGreedy, kGoOn, kNever);
  EXPECT_EQ(first.cached_tokens, 0);
  // The same again: all but the last token is known.
  const Generation again = generator->generate(prompt_, kGreedy, kGoOn, kNever);
  EXPECT_EQ(again.cached_tokens, std::ssize(prompt_) - 1);
  EXPECT_EQ(again.tokens, first.tokens);
  // The next turn of a chat: prompt, answer, and something new. The answer's last token was never computed.
  std::vector<int32_t> next = prompt_;
  next.insert(next.end(), first.tokens.begin(), first.tokens.end());
  next.push_back(12);
  const Generation turn = generator->generate(next, kGreedy, kGoOn, kNever);
  EXPECT_EQ(turn.cached_tokens, std::ssize(next) - 2);
  EXPECT_EQ(turn.tokens, open()->generate(next, kGreedy, kGoOn, kNever).tokens);
  // Another beginning.
  next[2] = 4;
  const Generation other = generator->generate(next, kGreedy, kGoOn, kNever);
  EXPECT_EQ(other.cached_tokens, 2);
  EXPECT_EQ(other.tokens, open()->generate(next, kGreedy, kGoOn, kNever).tokens);
}

TEST_F(GeneratorTest, EndsWhenItIsTold) {
  const auto generator = open();
  const std::vector<int32_t> all = generator->generate(prompt_, kGreedy, kGoOn, kNever).tokens;
  GenerationParams params = kGreedy;
  params.stop_ids = {all[4]};
  const Generation stopped = generator->generate(prompt_, params, kGoOn, kNever);
  EXPECT_EQ(stopped.finish, Finish::kStopId);
  EXPECT_EQ(std::ssize(stopped.tokens), std::ranges::find(all, all[4]) - all.begin() + 1);

  int seen = 0;
  const Generation refused = generator->generate(
      prompt_, kGreedy, [&](int32_t) { return ++seen < 3; }, kNever);
  EXPECT_EQ(refused.finish, Finish::kStopped);
  EXPECT_EQ(refused.tokens, std::vector<int32_t>(all.begin(), all.begin() + 3));

  std::atomic<bool> interrupt{false};
  const auto interrupt_at_two = [&, n = 0](int32_t) mutable {
    interrupt = ++n == 2;
    return true;
  };
  const Generation interrupted = generator->generate(prompt_, kGreedy, interrupt_at_two, interrupt);
  EXPECT_EQ(interrupted.finish, Finish::kInterrupted);
  EXPECT_EQ(interrupted.tokens.size(), 2U);
  interrupt = true;
  const Generation at_once = generator->generate(prompt_, kGreedy, kGoOn, interrupt);
  EXPECT_EQ(at_once.finish, Finish::kInterrupted);
  EXPECT_TRUE(at_once.tokens.empty());

  const Generation full = open(8, 15)->generate(prompt_, kGreedy, kGoOn, kNever);
  EXPECT_EQ(full.finish, Finish::kContextFull);
  // Four more fit behind the prompt of eleven, and the last token drawn needs no room.
  EXPECT_EQ(full.tokens, std::vector<int32_t>(all.begin(), all.begin() + 5));
}

TEST_F(GeneratorTest, RefusesPromptsThatItCannotAnswer) {
  const auto generator = open(8, 10);
  EXPECT_THROW(generator->generate({}, kGreedy, kGoOn, kNever), RequestError);
  EXPECT_THROW(generator->generate(prompt_, kGreedy, kGoOn, kNever), RequestError);
  EXPECT_THROW(generator->generate(std::vector<int32_t>{160}, kGreedy, kGoOn, kNever), RequestError);
  GenerationParams none = kGreedy;
  none.max_tokens = 0;
  EXPECT_THROW(generator->generate(std::vector<int32_t>{1}, none, kGoOn, kNever), RequestError);
  // And is fine afterwards.
  EXPECT_EQ(generator->generate(std::vector<int32_t>{1}, kGreedy, kGoOn, kNever).tokens.size(), 10U);
}

TEST_F(GeneratorTest, ARepetitionPenaltyMakesTokensNew) {
  GenerationParams params = kGreedy;
  params.sampling.repetition_penalty = 1e6;  // what was seen becomes hopeless
  const std::vector<int32_t> tokens = open()->generate(prompt_, params, kGoOn, kNever).tokens;
  std::vector<int32_t> all = prompt_;
  all.insert(all.end(), tokens.begin(), tokens.end());
  for (size_t i = prompt_.size(); i < all.size(); ++i)
    EXPECT_EQ(std::count(all.begin(), all.begin() + static_cast<int64_t>(i), all[i]), 0) << i;
}

TEST_F(GeneratorTest, PresenceAndFrequencyPenaltiesMakeAnAnswersTokensDiffer) {
  const std::vector<int32_t> plain = open()->generate(prompt_, kGreedy, kGoOn, kNever).tokens;
  for (double SamplingParams::*penalty :
       {&SamplingParams::presence_penalty, &SamplingParams::frequency_penalty}) {
    GenerationParams params = kGreedy;
    params.sampling.*penalty = 1e6;
    std::vector<int32_t> tokens = open()->generate(prompt_, params, kGoOn, kNever).tokens;
    EXPECT_EQ(tokens[0], plain[0]);  // the prompt has no say
    std::ranges::sort(tokens);
    EXPECT_EQ(std::ranges::adjacent_find(tokens), tokens.end());
    // Below 0 they do the opposite.
    params.sampling.*penalty = -1e6;
    tokens = open()->generate(prompt_, params, kGoOn, kNever).tokens;
    EXPECT_EQ(tokens, std::vector<int32_t>(tokens.size(), plain[0]));
  }
}

}  // namespace
}  // namespace moge::engine
