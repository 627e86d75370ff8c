// What a model is, in the words of its Hugging Face config.json. One struct serves every architecture that
// the one MoGE definition covers: dense Llama / Qwen2 / Qwen3, Qwen3-MoE (top-K in one group) and
// Pangu Pro MoE (arXiv 2505.21411, section 2: K' of the experts in each of G groups).
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace moge::spec {

/// Members named like a config.json key hold that key; the others say how they are derived. Letters: V vocab,
/// D hidden, L layers, H query heads, KV key/value heads, Dh head_dim, E experts, G groups, K experts per
/// token, F expert width.
struct ModelConfig {
  std::string model_type;                  ///< "llama", "qwen2", "qwen3", "qwen3_moe" or "PanguProMoE"
  std::vector<std::string> architectures;  ///< absent: the model type's causal language model

  int64_t vocab_size = 0;               ///< V
  int64_t hidden_size = 0;              ///< D
  int64_t num_hidden_layers = 0;        ///< L
  int64_t num_attention_heads = 0;      ///< H
  int64_t num_key_value_heads = 0;      ///< KV; absent: H, but required by the qwen types
  int64_t head_dim = 0;                 ///< Dh; absent: D / H, but 128 for qwen3
  int64_t max_position_embeddings = 0;  ///< longest sequence the model was made for
  int64_t intermediate_size = 0;  ///< width of a dense MLP; an MoE model may have it and has no use for it

  std::string hidden_act = "silu";  ///< the only one supported
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;  ///< lm_head.weight is model.embed_tokens.weight
  bool attention_bias = false;       ///< q_proj, k_proj, v_proj have biases; absent: true for PanguProMoE
  bool o_proj_bias = false;          ///< derived: attention_bias, but false for qwen2
  /// RMSNorm of every q and k head before the rotary positions. Derived: true for qwen3 and qwen3_moe; our
  /// own key for PanguProMoE.
  bool qk_norm = false;

  int64_t num_experts = 0;            ///< E; 0: a dense model. Also read from "num_local_experts"
  int64_t num_experts_per_tok = 0;    ///< K
  int64_t num_expert_groups = 1;      ///< G, our own key; absent: K for PanguProMoE, else 1 (plain top-K)
  int64_t moe_intermediate_size = 0;  ///< F
  int64_t shared_expert_intermediate_size = 0;  ///< width of the always-on expert, a multiple of F; 0: none
  bool norm_topk_prob = false;                  ///< the K kept probabilities are divided by their sum
  /// Kept probabilities are multiplied by mlp.router_scale [1, E]. Our own key; absent: true for PanguProMoE.
  bool use_router_scale = false;
  double router_aux_loss_coef = 0.0;  ///< alpha of the balance loss (eq. 8); absent: 0.001 for an MoE

  double initializer_range = 0.02;  ///< standard deviation of freshly initialised weights
  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_id;    ///< in config.json a number or a list
  std::optional<int64_t> pad_token_id;  ///< a negative number counts as absent
  DType torch_dtype = DType::kF32;      ///< also read from "dtype", its newer name

  /// Keys without a member that change nothing in the maths: JSON text by key, written back by to_json().
  std::map<std::string, std::string> other_keys;

  bool is_moe() const { return num_experts > 0; }
  int64_t experts_per_group() const { return num_experts / num_expert_groups; }       ///< E / G
  int64_t topk_per_group() const { return num_experts_per_tok / num_expert_groups; }  ///< K' = K / G
  /// The shared expert counted in experts of width F (training's grouped product runs it as that many).
  int64_t num_shared_experts() const {
    return is_moe() ? shared_expert_intermediate_size / moe_intermediate_size : 0;
  }
  int64_t q_dim() const { return num_attention_heads * head_dim; }   ///< rows of q_proj, columns of o_proj
  int64_t kv_dim() const { return num_key_value_heads * head_dim; }  ///< rows of k_proj and of v_proj

  /// Throws FileError (source, key, value, constraint) unless the sizes make a model that we can run.
  void validate(const std::string& source) const;
  /// The config.json of this model, for parse_model_config() and for Hugging Face tools.
  std::string to_json() const;

  bool operator==(const ModelConfig&) const = default;
};

/// Parses and validates a config.json. `source` names it in errors. Throws FileError for broken JSON, an
/// unknown model_type (naming the supported ones), contradictions, and every key that would change the maths
/// in a way that is not implemented (rope_scaling, sliding windows, quantization_config, ...).
ModelConfig parse_model_config(std::string_view json, const std::string& source);

/// Reads `path`, a config.json or a directory that has one. Warns of keys that it does not know.
ModelConfig load_model_config(const std::filesystem::path& path);

}  // namespace moge::spec
