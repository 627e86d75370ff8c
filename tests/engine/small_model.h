// Small models: the checkpoints of tests/golden, and a random one whose weights can all be packed (the
// golden ones' vocabulary cannot).
#pragma once
#include <filesystem>
#include <string>

#include "model/loader.h"

namespace moge::engine {

inline std::filesystem::path golden_dir(const std::string& name) {
  return std::filesystem::path(MOGE_SOURCE_DIR) / "tests/golden/models" / name;
}

inline model::Model packable_model(ThreadPool& pool, DType dtype, bool tied) {
  spec::ModelConfig c;
  c.model_type = "PanguProMoE";
  c.vocab_size = 160;
  c.hidden_size = 64;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.max_position_embeddings = 256;
  c.num_experts = 8;
  c.num_experts_per_tok = 4;
  c.num_expert_groups = 4;
  c.moe_intermediate_size = 32;
  c.shared_expert_intermediate_size = 64;
  c.use_router_scale = true;
  c.attention_bias = c.o_proj_bias = true;
  c.tie_word_embeddings = tied;
  c.initializer_range = 0.2;  // logits that differ
  c.validate("packable_model");
  model::Model model = model::allocate_model(c, dtype);
  model::init_weights(model.weights, c, 1, pool);
  return model;
}

}  // namespace moge::engine
