// What a Runner promises on every device, and the small models to check it with. tests/engine runs them on
// the CPU, tests/gpu on a GPU and against the CPU.
#pragma once
#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"
#include "engine/runner.h"
#include "io/hf_checkpoint.h"
#include "model/loader.h"
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

/// More than one warp for a row, and an attention wider than the model.
inline spec::ModelConfig wide_moge() {
  spec::ModelConfig c = small_moge();
  c.hidden_size = 1536;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 40;
  c.num_key_value_heads = 8;
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
  c.num_attention_heads = 8;
  c.num_key_value_heads = 4;
  c.head_dim = 64;
  c.max_position_embeddings = 4096;
  c.intermediate_size = 704;
  c.qk_norm = true;
  c.tie_word_embeddings = true;
  c.initializer_range = 0.1;
  c.validate("small_dense");
  return c;
}

/// The models of the tests by name.
inline spec::ModelConfig runner_model(const std::string& name) {
  if (name == "dense") return small_dense();
  if (name == "wide") return wide_moge();
  if (name == "none_shared") return small_moge(16, 0);
  return small_moge(name == "every_expert" ? 16 : 4);
}

/// Writes a randomly initialised checkpoint.
inline void write_checkpoint(const std::filesystem::path& dir, const spec::ModelConfig& config) {
  ThreadPool pool(2);
  ExecContext ctx{.pool = &pool};
  const model::Model model = model::allocate_model(config, DType::kF32);
  model::init_weights(model.weights, config, 3, pool);
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

  Runner make(int64_t max_sequences, bool graphs = true) const {
    ExecContext c = ctx;
    return {c,
            model::load_serving_model(c, dir, spec::load_model_config(dir), weights, {}),
            {.max_sequences = max_sequences,
             .context = 600,
             .max_batch_tokens = 256,
             .kv_dtype = kv,
             .graphs = graphs}};
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
  int64_t row = 0;
  while (row < batch) {  // as many prompts as fit in a pass
    std::vector<std::span<const int32_t>> pieces;
    size_t total = 0;
    const int64_t first = row;
    while (row < batch && total + prompts[row].size() <= 256)
      total += pieces.emplace_back(prompts[row++]).size();
    runner.prefill(first, pieces);
  }
  // prefill leaves the logits of its own rows; what the last pass drew for the watched row is in tokens().
  const size_t V = static_cast<size_t>(runner.config().vocab_size);
  EXPECT_EQ(runner.tokens(batch).back(), want.tokens[0]);
  for (size_t step = 1; step < want.logits.size(); ++step) {
    runner.decode();
    const std::vector<float> all = runner.logits(batch);
    const std::vector<float> watched(all.end() - static_cast<int64_t>(V), all.end());
    ASSERT_EQ(watched, want.logits[step]) << "step " << step;
    ASSERT_EQ(runner.tokens(batch).back(), want.tokens[step]) << "step " << step;
  }
}

}  // namespace moge::engine
