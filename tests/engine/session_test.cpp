// What a session computes: the same bits however a prompt is cut, and what the training forward computes.
#include "engine/session.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "engine/small_model.h"
#include "refusal.h"

namespace moge::engine {
namespace {

std::vector<int32_t> random_tokens(int64_t n, int64_t vocab_size) {
  Rng rng(7);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.next_below(static_cast<uint32_t>(vocab_size)));
  return ids;
}

std::vector<float> logits_of(Session& session) {
  const Tensor logits = session.logits();
  const std::span<float> values = elements<float>(logits);
  return {values.begin(), values.end()};
}

/// Appends in passes of `piece` tokens; the logits after each pass.
std::vector<std::vector<float>> append_all(Session& session, std::span<const int32_t> tokens, size_t piece) {
  std::vector<std::vector<float>> logits;
  while (!tokens.empty()) {
    const size_t n = std::min(piece, tokens.size());
    session.append(tokens.first(n));
    logits.push_back(logits_of(session));
    tokens = tokens.subspan(n);
  }
  return logits;
}

/// Logits of every row by the pass that training and evaluation use: no cache, no packing.
std::vector<std::vector<float>> training_logits(ThreadPool& pool, const model::Model& model,
                                                const std::vector<int32_t>& ids) {
  const auto T = static_cast<int64_t>(ids.size());
  const spec::ModelConfig& c = model.config;
  const OwnedTensor tokens(DType::kI32, {T}), positions(DType::kI32, {T}), cu_seqlens(DType::kI32, {2});
  for (int64_t t = 0; t < T; ++t) {
    tokens.get().ptr<int32_t>()[t] = ids[t];
    positions.get().ptr<int32_t>()[t] = static_cast<int32_t>(t);
  }
  cu_seqlens.get().ptr<int32_t>()[1] = static_cast<int32_t>(T);
  Workspace workspace(64 << 20);
  ExecContext ctx{.pool = &pool, .workspace = &workspace};
  Arena plan;
  model::allocate_activations(plan, c, T, model::Keep::kAllLayers);
  Arena memory(plan.used_bytes(), "activations");
  const model::Activations acts = model::allocate_activations(memory, c, T, model::Keep::kAllLayers);
  const model::Batch batch{.tokens = tokens, .positions = positions, .cu_seqlens = cu_seqlens};
  model::transformer_fwd(ctx, c, model.weights, batch, nullptr, acts);
  const OwnedTensor logits(DType::kF32, {T, c.vocab_size});
  model::head_fwd(ctx, model.weights, acts.final, logits);
  std::vector<std::vector<float>> rows;
  for (int64_t t = 0; t < T; ++t) {
    const std::span<float> row = elements<float>(logits.get()[t]);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

/// Norm of the difference over the norm.
double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double diff = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    diff += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    norm += double{want[i]} * want[i];
  }
  return std::sqrt(diff / norm);
}

/// How far two passes in arithmetic of unit roundoff `eps` may be apart that only differ in the order of
/// their sums: rounding errors add up like a random walk over a sum's terms (at most some 100 here), and a
/// layer has seven products.
double order_tolerance(double eps, int64_t num_layers) {
  return eps * std::sqrt(100.0 * 7.0 * static_cast<double>(num_layers));
}

class EveryGoldenModel : public testing::TestWithParam<std::string> {
 protected:
  model::Model load() {
    ExecContext ctx{.pool = &pool_};
    const std::filesystem::path dir = golden_dir(GetParam());
    return model::load_model(ctx, dir, spec::load_model_config(dir), DType::kF32);
  }
  ThreadPool pool_{1};
};

TEST_P(EveryGoldenModel, GivesTheSameBitsHoweverAPromptIsCut) {
  const std::vector<int32_t> tokens = random_tokens(29, load().config.vocab_size);
  for (const DType kv : {DType::kF32, DType::kBF16}) {
    const SessionConfig config{.context = 40, .kv_dtype = kv, .max_batch_tokens = 32};
    Session one_by_one({.pool = &pool_}, load(), config);
    const auto want = append_all(one_by_one, tokens, 1);
    for (const size_t piece : {size_t{2}, size_t{5}, size_t{29}}) {
      Session session({.pool = &pool_}, load(), config);
      EXPECT_EQ(append_all(session, tokens, piece).back(), want.back()) << "passes of " << piece;
    }
  }
}

TEST_P(EveryGoldenModel, AgreesWithTheTrainingForward) {
  const model::Model model = load();
  const std::vector<int32_t> tokens = random_tokens(29, model.config.vocab_size);
  const auto want = training_logits(pool_, model, tokens);
  Session session({.pool = &pool_}, load(), {.context = 40, .kv_dtype = DType::kF32, .max_batch_tokens = 32});
  const auto got = append_all(session, tokens, 1);
  for (size_t t = 0; t < tokens.size(); ++t)
    EXPECT_LE(relative_error(got[t], want[t]), order_tolerance(0x1p-24, model.config.num_hidden_layers))
        << "position " << t;
}

INSTANTIATE_TEST_SUITE_P(, EveryGoldenModel,
                         testing::Values("llama", "moge_2x8_k2", "moge_4x16", "moge_8x8", "qwen3",
                                         "qwen3_moe", "renormalised", "router_scale", "ties"),
                         [](const auto& info) { return info.param; });

TEST(Session, PackedWeightsTiedOrNotAgreeWithTheTrainingForward) {
  ThreadPool pool(1);
  for (const bool tied : {false, true}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const model::Model model = packable_model(pool, dtype, tied);
      const std::vector<int32_t> tokens = random_tokens(50, model.config.vocab_size);
      const auto want = training_logits(pool, model, tokens);
      Session session({.pool = &pool}, packable_model(pool, dtype, tied),
                      {.context = 64, .kv_dtype = DType::kF32, .max_batch_tokens = 16});
      const auto got = append_all(session, tokens, 16);
      // With bf16 weights a sum that differs in its last bit may fall on the other side of an operand's
      // rounding, which is 2^-9 of it.
      EXPECT_LE(relative_error(got.back(), want.back()),
                order_tolerance(dtype == DType::kF32 ? 0x1p-24 : 0x1p-9, 2))
          << name_of(dtype) << " tied " << tied;
    }
  }
}

TEST(Session, ForgetsWhatItIsToldTo) {
  ThreadPool pool(1);
  const SessionConfig config{.context = 64, .kv_dtype = DType::kBF16, .max_batch_tokens = 16};
  Session session({.pool = &pool}, packable_model(pool, DType::kBF16, false), config);
  const std::vector<int32_t> tokens = random_tokens(16, 160);
  session.append(tokens);
  const std::vector<float> want = logits_of(session);
  session.append(std::vector<int32_t>{1, 2, 3});
  session.truncate(15);
  EXPECT_EQ(session.tokens(), std::vector<int32_t>(tokens.begin(), tokens.end() - 1));
  session.append({&tokens.back(), 1});
  EXPECT_EQ(logits_of(session), want);
}

TEST(Session, RefusesWhatDoesNotFit) {
  ThreadPool pool(1);
  const auto open = [&](const SessionConfig& config) {
    return std::make_unique<Session>(ExecContext{.pool = &pool}, packable_model(pool, DType::kBF16, false),
                                     config);
  };
  EXPECT_THROW(open({.context = 257}), UsageError);
  EXPECT_THROW(open({.context = 0}), UsageError);
  EXPECT_THROW(open({.context = 8, .kv_dtype = DType::kF16}), UsageError);
  EXPECT_THROW(open({.context = 8, .max_batch_tokens = 0}), UsageError);
  const auto session = open({.context = 8});
  EXPECT_EQ(session->limits().max_batch_tokens, 8);
  EXPECT_THROW(session->append(std::vector<int32_t>{160}), RequestError);
  EXPECT_THROW(session->append(std::vector<int32_t>{-1}), RequestError);
  session->append(random_tokens(8, 160));
  EXPECT_THROW(session->append(std::vector<int32_t>{1}), RequestError);
  EXPECT_EQ(session->tokens().size(), 8U);
}

TEST(Session, SaysWhatDoesNotFitBeforeItAllocates) {
  ThreadPool pool(1);
  const auto refusal = [](const std::string& model, int64_t context, int64_t free) {
    const spec::ModelConfig c = spec::load_model_config(MOGE_SOURCE_DIR "/configs/models/" + model);
    return test::refusal<OutOfMemoryError>(
        [&] { Session::check_fits(c, DType::kBF16, {.context = context}, free); });
  };
  const std::string large = refusal("pangu-pro-moe-72b-a16b", 4096, int64_t{20} << 30);
  EXPECT_TRUE(
      large.starts_with("the plan does not fit in the CPU's memory: weights 134.12 GiB, KV cache 0.75 GiB"))
      << large;
  EXPECT_NE(large.find("; 20.00 GiB are free, "), std::string::npos) << large;
  EXPECT_TRUE(large.ends_with(" GiB too few for the weights. Not even a context of 1 token would fit"))
      << large;
  const std::string short_context = refusal("pangu-pro-moe-72b-a16b", 16, 1 << 30);
  EXPECT_NE(short_context.find(", KV cache 12.0 MiB, "), std::string::npos) << short_context;

  model::Model model = packable_model(pool, DType::kBF16, false);
  const spec::ModelConfig c = model.config;
  const SessionConfig limits{.context = 200};
  const Session session({.pool = &pool}, std::move(model), limits);
  const Session::MemoryPlan plan = Session::plan(c, DType::kBF16, limits);
  EXPECT_EQ(plan.total() + session.memory_plan().workspace, session.memory_plan().total());
  Session::check_fits(c, DType::kBF16, limits, plan.total());
  const std::string longer = test::refusal<OutOfMemoryError>(
      [&] { Session::check_fits(c, DType::kBF16, limits, plan.total() - 1); });
  // A page more holds 64 tokens, and a pass of fewer tokens needs less.
  EXPECT_TRUE(longer.ends_with(" for the activations. At most a context of 199 tokens would fit")) << longer;
}

}  // namespace
}  // namespace moge::engine
