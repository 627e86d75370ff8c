#include "spec/architectures.h"

#include "core/error.h"

namespace moge::spec {
namespace {

// Biases and norms as in transformers' modeling files of these types; PanguProMoE as in the released
// checkpoint, whose four attention projections all have biases.
constexpr Architecture kArchitectures[] = {
    {.model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .is_moe = false,
     .attention_bias = false,
     .attention_bias_key = true,
     .o_proj_bias = true,
     .qk_norm = false,
     .moge_keys = false,
     .head_dim = 0,
     .kv_heads_key = false,
     .windows_opt_in = false},
    {.model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .is_moe = false,
     .attention_bias = true,
     .attention_bias_key = false,
     .o_proj_bias = false,
     .qk_norm = false,
     .moge_keys = false,
     .head_dim = 0,
     .kv_heads_key = true,
     .windows_opt_in = true},
    {.model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .is_moe = false,
     .attention_bias = false,
     .attention_bias_key = true,
     .o_proj_bias = true,
     .qk_norm = true,
     .moge_keys = false,
     .head_dim = 128,
     .kv_heads_key = true,
     .windows_opt_in = true},
    {.model_type = "qwen3_moe",
     .class_name = "Qwen3MoeForCausalLM",
     .is_moe = true,
     .attention_bias = false,
     .attention_bias_key = true,
     .o_proj_bias = true,
     .qk_norm = true,
     .moge_keys = false,
     .head_dim = 0,
     .kv_heads_key = true,
     .windows_opt_in = true},
    {.model_type = "PanguProMoE",
     .class_name = "PanguProMoEForCausalLM",
     .is_moe = true,
     .attention_bias = true,
     .attention_bias_key = true,
     .o_proj_bias = true,
     .qk_norm = false,
     .moge_keys = true,
     .head_dim = 0,
     .kv_heads_key = false,
     .windows_opt_in = false},
};

std::string supported() {
  std::string list;
  for (const Architecture& a : kArchitectures) list += str(list.empty() ? "" : ", ", a.model_type);
  return list;
}

}  // namespace

std::span<const Architecture> architectures() {
  return kArchitectures;
}

const Architecture& find_architecture(std::string_view model_type, std::string_view class_name,
                                      const std::string& source) {
  check<FileError>(
      !class_name.starts_with("PanguProMoEV2") && !model_type.starts_with("PanguProMoEV2"), source,
      ": PanguProMoEV2 (openPangu-R-72B-2512) is not supported: in spite of its name it is another model "
      "(sigmoid router scores with a correction bias, top-K over all experts, a routed scaling factor, "
      "sandwich "
      "norms, partial rotary positions, parameter sinks); supported: ",
      supported());
  for (const Architecture& a : kArchitectures) {
    if (model_type != a.model_type) continue;
    check<FileError>(class_name.empty() || class_name == a.class_name, source, ": architectures: '",
                     class_name, "' is not supported; for model_type '", a.model_type, "' expected '",
                     a.class_name, "'");
    return a;
  }
  throw FileError(str(source, ": model_type '", model_type, "' is not supported; supported: ", supported()));
}

}  // namespace moge::spec
