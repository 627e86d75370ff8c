// What a Runner promises on every device, and the small models to check it with. tests/engine runs them on
// the CPU, tests/gpu on a GPU and against the CPU.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "core/rng.h"
#include "engine/runner.h"
#include "io/hf_checkpoint.h"
#include "model/loader.h"
#include "model/serving_loader.h"
#include "temp_dir.h"

namespace moge::engine {

/// 16 experts in 4 groups of 4, seven shared, together wider than the model by more than twice (token_layer
/// takes such rows in parts); sizes that the fast kernels take (heads of 64, widths of 64).
/// With topk 16 every expert is chosen: then rounding cannot flip a selection, and two computations can be
/// compared closely.
inline spec::ModelConfig small_moge(int64_t topk = 4, int64_t shared_width = 1344) {
  spec::ModelConfig c;
  c.model_type = "PanguProMoE";
  c.vocab_size = 500;
  c.hidden_size = 256;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 10;
  c.num_key_value_heads = 2;
  c.head_dim = 64;
  c.max_position_embeddings = 4096;
  c.num_experts = 16;
  c.num_experts_per_tok = topk;
  c.num_expert_groups = 4;
  c.moe_intermediate_size = 192;
  c.shared_expert_intermediate_size = shared_width;
  c.use_router_scale = true;
  c.attention_bias = c.o_proj_bias = true;
  c.initializer_range = 0.1;  // logits that differ
  c.validate("small_moge");
  return c;
}

/// More than one warp for a row, an attention wider than the model, heads of 128.
inline spec::ModelConfig wide_moge() {
  spec::ModelConfig c = small_moge();
  c.hidden_size = 1536;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 20;
  c.num_key_value_heads = 4;
  c.head_dim = 128;
  c.moe_intermediate_size = 336;
  c.shared_expert_intermediate_size = 672;
  c.use_router_scale = false;
  c.norm_topk_prob = true;
  c.attention_bias = c.o_proj_bias = false;
  c.validate("wide_moge");
  return c;
}

inline spec::ModelConfig small_dense() {
  spec::ModelConfig c;
  c.model_type = "qwen3";
  c.vocab_size = 500;
  c.hidden_size = 256;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 128;
  c.max_position_embeddings = 4096;
  c.intermediate_size = 704;
  c.qk_norm = true;
  c.tie_word_embeddings = true;
  c.initializer_range = 0.1;
  c.validate("small_dense");
  return c;
}

/// The models of the tests by name; "clear_NAME" is NAME with clear_routes(), "one_NAME" its first layer.
inline spec::ModelConfig runner_model(const std::string& name) {
  if (name.starts_with("clear_")) return runner_model(name.substr(6));
  if (name.starts_with("one_")) {
    spec::ModelConfig c = runner_model(name.substr(4));
    c.num_hidden_layers = 1;
    return c;
  }
  if (name == "dense") return small_dense();
  if (name == "wide") return wide_moge();
  if (name == "none_shared") return small_moge(16, 0);
  return small_moge(name == "every_expert" ? 16 : 4);
}

/// Makes the router of a model with groups of four experts read two signs a group, which the embedding writes
/// and no layer changes. The logits of a group are then 2, 0, 0 and -2 times a positive number, so that no
/// rounding flips a selection, whatever the format; yet tokens and layers differ in their experts.
inline void clear_routes(const model::Weights& w, const spec::ModelConfig& c) {
  constexpr float kSign = 0.3F;  // no larger than a row's largest element is anyway: int8 keeps its steps
  constexpr float kGate = 4;
  const int64_t D = c.hidden_size, signs = 2 * c.num_expert_groups;
  dcheck(c.num_experts == 4 * c.num_expert_groups, "expected groups of four experts");
  Rng rng(11, 0);
  for (int64_t id = 0; id < c.vocab_size; ++id)
    for (int64_t i = 0; i < signs; ++i)
      w.embed_tokens.ptr<float>()[id * D + i] = rng.next_below(2) == 0 ? -kSign : kSign;
  for (size_t l = 0; l < w.layers.size(); ++l) {
    const model::LayerWeights& layer = w.layers[l];
    for (const Tensor& t : {layer.o_proj, layer.down_proj}) {  // [.., D, n]
      const int64_t n = t.dim(t.shape.ndim() - 1), matrices = t.numel() / (D * n);
      for (int64_t m = 0; m < matrices; ++m) std::fill_n(t.ptr<float>() + m * D * n, signs * n, 0.0F);
    }
    std::fill_n(layer.gate.ptr<float>(), layer.gate.numel(), 0.0F);
    for (uint64_t e = 0; e < static_cast<uint64_t>(c.num_experts); ++e)
      for (uint64_t bit = 0; bit < 2; ++bit)
        layer.gate.ptr<float>()[e * static_cast<uint64_t>(D) + e / 4 * 2 + bit] =
            ((e ^ l) >> bit & 1) != 0 ? kGate : -kGate;
  }
}

/// Writes a randomly initialised checkpoint of the model of this name.
inline void write_checkpoint(const std::filesystem::path& dir, const std::string& name) {
  const spec::ModelConfig config = runner_model(name);
  ThreadPool pool(2);
  ExecContext ctx{.pool = &pool};
  const model::Model model = model::allocate_model(config, DType::kF32);
  model::init_weights(model.weights, config, 3, pool);
  if (name.starts_with("clear_")) clear_routes(model.weights, config);
  io::CheckpointWriter writer(dir, config, model::checkpoint_tensors(model.weights, config, DType::kBF16));
  model::write_weights(ctx, writer, model.weights, config);
  writer.finish();
}

inline std::vector<int32_t> prompt(int64_t length, uint64_t stream) {
  Rng rng(7, stream);
  std::vector<int32_t> ids(static_cast<size_t>(length));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.next_below(500));
  return ids;
}

/// One model in one number format on one device.
struct RunnerCase {
  ExecContext ctx;
  std::filesystem::path dir;
  DType weights = DType::kI8;
  DType kv = DType::kBF16;

  RunnerConfig limits(int64_t max_sequences, bool graphs = true) const {
    return {.max_sequences = max_sequences,
            .context = 600,
            .max_batch_tokens = 256,
            .kv_dtype = kv,
            .penalties = true,
            .graphs = graphs};
  }
  Runner make(int64_t max_sequences, bool graphs = true) const {
    ExecContext c = ctx;
    return {c, model::load_serving_model(c, dir, spec::load_model_config(dir), weights, {}),
            limits(max_sequences, graphs)};
  }
};

/// Prefills `tokens` into `row` in passes of at most `piece`.
inline void prefill_in_pieces(Runner& runner, int64_t row, std::span<const int32_t> tokens, size_t piece) {
  while (!tokens.empty()) {
    const std::span<const int32_t> head = tokens.first(std::min(piece, tokens.size()));
    tokens = tokens.subspan(head.size());
    runner.prefill(row, {&head, 1}, tokens.empty());
  }
}

/// The logits after the prompt and after each of `steps` greedy steps, and the tokens drawn, of a sequence
/// alone.
struct Trace {
  std::vector<std::vector<float>> logits;
  std::vector<int32_t> tokens;
};
inline Trace greedy(Runner& runner, std::span<const int32_t> tokens, int steps, size_t piece = 256) {
  Trace trace;
  runner.start(0, static_cast<int64_t>(tokens.size()) + steps + 1, {.temperature = 0});
  prefill_in_pieces(runner, 0, tokens, piece);
  for (int i = 0; i <= steps; ++i) {
    if (i > 0) runner.decode();
    trace.logits.push_back(runner.logits(1));
    trace.tokens.push_back(runner.tokens(1)[0]);
  }
  runner.stop(0);
  return trace;
}

/// Row `row` of the last pass.
inline std::vector<float> logits_of(Runner& runner, int64_t row) {
  const std::vector<float> all = runner.logits(row + 1);
  return {all.end() - runner.config().vocab_size, all.end()};
}

/// The same bits however a prompt is cut into passes.
inline void check_chunked_prefill(const RunnerCase& c, int64_t prompt_tokens) {
  const std::vector<int32_t> tokens = prompt(prompt_tokens, 1);
  Runner runner = c.make(1);
  const Trace want = greedy(runner, tokens, 3);
  for (const size_t piece : {size_t{1}, size_t{17}, size_t{64}, size_t{100}}) {
    const Trace got = greedy(runner, tokens, 3, piece);
    EXPECT_EQ(got.tokens, want.tokens) << "pieces of " << piece;
    EXPECT_EQ(got.logits, want.logits) << "pieces of " << piece;
  }
}

/// The same bits whatever else is in the batch: of prefill passes and of decode steps.
inline void check_batch_invariance(const RunnerCase& c, int64_t batch) {
  Runner alone = c.make(1);
  const Trace want = greedy(alone, prompt(70, 1), 5);
  Runner runner = c.make(batch);
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t row = 0; row < batch; ++row) {
    runner.start(row, 100, {.temperature = 0});
    // The watched sequence is the last row; the others' lengths differ.
    prompts.push_back(row == batch - 1 ? prompt(70, 1)
                                       : prompt(1 + row * 7 % 80, static_cast<uint64_t>(row) + 2));
  }
  int64_t row = 0, rows_of_pass = 0;
  while (row < batch) {  // as many prompts as fit in a pass
    std::vector<std::span<const int32_t>> pieces;
    size_t total = 0;
    const int64_t first = row;
    while (row < batch && total + prompts[row].size() <= 256)
      total += pieces.emplace_back(prompts[row++]).size();
    runner.prefill(first, pieces);
    rows_of_pass = row - first;
  }
  for (size_t step = 0; step < want.logits.size(); ++step) {
    if (step > 0) runner.decode();
    ASSERT_EQ(logits_of(runner, step > 0 ? batch - 1 : rows_of_pass - 1), want.logits[step])
        << "step " << step;
    ASSERT_EQ(runner.tokens(batch).back(), want.tokens[step]) << "step " << step;
  }
}

/// What a scheduler does to rows. kPrefill begins or continues the row's sequence with `count` new tokens;
/// kDecode is a step of all rows.
struct Action {
  enum Kind { kStart, kPrefill, kDecode, kTruncate, kStop } kind;
  int64_t row = 0, count = 0;
};

/// Rows of a batch that come, go, wait and step back; 17 of them are a graph for 24. Passes have at most 128
/// rows: above that the copy engine writes products, and compute-sanitizer's initcheck does not see it.
inline std::vector<Action> comings_and_goings() {
  std::vector<Action> actions;
  const auto decode = [&](int steps) {
    actions.insert(actions.end(), static_cast<size_t>(steps), {Action::kDecode});
  };
  for (int64_t row = 0; row < 17; ++row) {
    actions.push_back({Action::kStart, row});
    actions.push_back({Action::kPrefill, row, 1 + row * 5 % 70});
  }
  decode(3);
  actions.push_back({Action::kStop, 3});
  actions.push_back({Action::kTruncate, 5, 9});
  decode(2);
  actions.push_back({Action::kStart, 3});
  actions.push_back({Action::kPrefill, 3, 66});
  actions.push_back({Action::kPrefill, 5, 4});
  decode(2);
  actions.push_back({Action::kStop, 16});
  actions.push_back({Action::kStart, 20});
  decode(2);
  actions.push_back({Action::kPrefill, 20, 90});
  decode(2);
  return actions;
}

/// How the requests of a row draw: greedily, at some temperature, or with penalties too.
inline SamplingParams sampling_of(int64_t row) {
  if (row % 3 == 0) return {.temperature = 0};
  SamplingParams p{.temperature = 0.8, .top_k = 30, .seed = static_cast<uint64_t>(100 + row)};
  if (row % 3 == 2)
    p = {.temperature = 1.2,
         .top_p = 0.9,
         .min_p = 0.01,
         .repetition_penalty = 1.3,
         .presence_penalty = 0.5,
         .frequency_penalty = 0.3,
         .seed = p.seed};
  return p;
}

/// Each row's logits and tokens, pass by pass. With `only`, that row's actions alone, in row 0.
inline std::map<int64_t, Trace> play(Runner& runner, const std::vector<Action>& actions,
                                     std::optional<int64_t> only = {}) {
  std::map<int64_t, Trace> traces;
  std::set<int64_t> decoding;
  uint64_t stream = 1000;
  for (const Action& a : actions) {
    ++stream;  // each action's tokens are the same in both ways to play
    if (only && a.kind != Action::kDecode && a.row != *only) continue;
    const int64_t row = only ? 0 : a.row;
    const auto note = [&](int64_t of, int64_t logits_row) {
      traces[only.value_or(of)].logits.push_back(logits_of(runner, logits_row));
      traces[only.value_or(of)].tokens.push_back(runner.tokens(of + 1).back());
    };
    if (a.kind == Action::kStart) {
      runner.start(row, 300, {.temperature = 0});
      runner.set_sampling(row, sampling_of(a.row), prompt(20, stream));
    } else if (a.kind == Action::kPrefill) {
      prefill_in_pieces(runner, row, prompt(a.count, stream), 256);
      decoding.insert(row);
      note(row, 0);
    } else if (a.kind == Action::kTruncate) {
      runner.truncate(row, a.count);
      decoding.erase(row);
    } else if (a.kind == Action::kStop) {
      runner.stop(row);
      decoding.erase(row);
    } else if (!decoding.empty()) {
      runner.decode();
      for (const int64_t of : decoding) note(of, of);
    }
  }
  return traces;
}

/// The same bits in batches that change as alone, drawn as each request says.
inline void check_comings_and_goings(const RunnerCase& c) {
  const std::vector<Action> actions = comings_and_goings();
  Runner batch = c.make(32), eager = c.make(32, false);
  const std::map<int64_t, Trace> got = play(batch, actions), op_by_op = play(eager, actions);
  ASSERT_EQ(got.size(), 18U);
  for (const auto& [row, trace] : got) {
    Runner alone = c.make(1);
    const Trace want = play(alone, actions, row).at(row);
    EXPECT_EQ(trace.tokens, want.tokens) << "row " << row;
    EXPECT_EQ(trace.logits, want.logits) << "row " << row;
    EXPECT_EQ(trace.tokens, op_by_op.at(row).tokens) << "row " << row << ", graph and op by op";
    EXPECT_EQ(trace.logits, op_by_op.at(row).logits) << "row " << row << ", graph and op by op";
  }
}

/// |got - want| / |want|.
inline double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double diff = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    diff += std::pow(double{got[i]} - want[i], 2);
    norm += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(diff / norm);
}

/// The logits after `tokens` and after each token of `text`, one a step.
inline Trace follow(Runner& runner, const std::vector<int32_t>& tokens, const std::vector<int32_t>& text) {
  Trace trace;
  runner.start(0, std::ssize(tokens) + std::ssize(text) + 1, {.temperature = 0});
  prefill_in_pieces(runner, 0, tokens, 256);
  for (size_t step = 0; step <= text.size(); ++step) {
    if (step > 0) {
      runner.set_tokens({text[step - 1]});
      runner.decode();
    }
    trace.logits.push_back(runner.logits(1));
    trace.tokens.push_back(runner.tokens(1)[0]);
  }
  runner.stop(0);
  return trace;
}

/// The mean over the steps.
inline double mean_error(const Trace& got, const Trace& want) {
  double sum = 0;
  for (size_t i = 0; i < want.logits.size(); ++i) sum += relative_error(got.logits[i], want.logits[i]);
  return sum / static_cast<double>(want.logits.size());
}

/// The tokens of two computations of a text whose logits are `error` apart.
struct TokensApart {
  int differ = 0;
  double expected = 0;  ///< as many differ, by the gaps of the two best logits and `error`
  int unexplained = 0;  ///< differ although the gap is more than four standard deviations
};
inline TokensApart tokens_apart(const Trace& got, const Trace& want, double error) {
  TokensApart apart;
  for (size_t i = 0; i < want.tokens.size(); ++i) {
    const std::vector<float>& row = want.logits[i];
    const auto best = static_cast<size_t>(want.tokens[i]);
    double norm = 0, gap = std::numeric_limits<double>::infinity();
    for (size_t v = 0; v < row.size(); ++v) {
      norm += std::pow(double{row[v]}, 2);
      if (v != best) gap = std::min(gap, double{row[best]} - row[v]);
    }
    // A difference of two logits is off by sqrt(2) times one's error.
    const double sigma = error * std::sqrt(2 * norm / static_cast<double>(row.size()));
    const bool differs = got.tokens[i] != want.tokens[i];
    apart.differ += differs;
    apart.unexplained += differs && gap > 4 * sigma;
    apart.expected += 0.5 * std::erfc(gap / sigma / std::sqrt(2.0));
  }
  return apart;
}

/// The median relative error of the logits of sequences of one token. Where a model has one layer too, few
/// roundings of a row find its elements so close to the middle of two values that another order of sums flips
/// them, and those that flip have few others behind them.
inline double median_error_of_one_token(Runner& got, Runner& want) {
  std::vector<double> errors;
  for (int32_t token = 0; token < 65; ++token) {
    const Trace a = follow(got, {token}, {}), b = follow(want, {token}, {});
    errors.push_back(relative_error(a.logits[0], b.logits[0]));
  }
  std::nth_element(errors.begin(), errors.begin() + 32, errors.end());
  return errors[32];
}

}  // namespace moge::engine
