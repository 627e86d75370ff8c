// The model types that the one MoGE definition covers, as a table of what sets them apart.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moge::spec {

struct Architecture {
  const char* model_type;  ///< config.json's "model_type"
  const char* class_name;  ///< the entry of "architectures" that means a causal language model
  bool is_moe;
  bool attention_bias;      ///< without the key
  bool attention_bias_key;  ///< the key may say otherwise
  bool o_proj_bias;         ///< o_proj has a bias when the others have
  bool qk_norm;
  bool moge_keys;       ///< reads our own qk_norm, and defaults to one expert per group with a router_scale
  int64_t head_dim;     ///< without the key; 0: hidden_size / num_attention_heads
  bool kv_heads_key;    ///< num_key_value_heads must be there (its default is unrelated to the other sizes)
  bool windows_opt_in;  ///< sliding_window means nothing unless use_sliding_window is true
};

std::span<const Architecture> architectures();

/// Throws FileError for a model type that is not supported, naming those that are. `class_name` is the first
/// entry of "architectures" or empty.
const Architecture& find_architecture(std::string_view model_type, std::string_view class_name,
                                      const std::string& source);

}  // namespace moge::spec
