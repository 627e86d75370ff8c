// config.json to ModelConfig and back.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/log.h"
#include "core/nearest.h"
#include "spec/architectures.h"
#include "spec/model_config.h"

namespace moge::spec {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = int64_t{4} << 20;

/// Keys of models that we don't have. Each changes the maths unless it has this value (JSON text); "" means
/// that no value but null will do.
struct NeutralKey {
  const char* key;
  const char* value;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"mlp_bias", "false"},
    {"rope_interleaved", "false"},
    {"partial_rotary_factor", "1"},
    {"rotary_pct", "1"},
    {"use_mrope", "false"},
    {"alibi", "false"},
    {"no_rope_layers", "[]"},
    {"no_rope_layer_interval", ""},
    {"use_sliding_window", "false"},
    {"attention_chunk_size", ""},
    {"attn_logit_softcapping", ""},
    {"final_logit_softcapping", ""},
    {"router_logit_softcapping", ""},
    {"query_pre_attn_scalar", ""},
    {"param_sink_number", "0"},
    {"sandwich_norm", "false"},
    {"use_qk_norm", "false"},
    {"use_k_norm", "false"},
    {"embedding_multiplier", "1"},
    {"attention_multiplier", ""},
    {"residual_multiplier", "1"},
    {"logits_scaling", "1"},
    {"logit_scale", "1"},
    {"scale_emb", "1"},
    {"scale_depth", ""},
    {"decoder_sparse_step", "1"},
    {"moe_layer_freq", "1"},
    {"mlp_only_layers", "[]"},
    {"first_k_dense_replace", "0"},
    {"num_dense_layers", "0"},
    {"scoring_func", "\"softmax\""},
    {"routed_scaling_factor", "1"},
    {"n_group", "1"},
    {"topk_group", "1"},
    {"n_shared_experts", "0"},
    {"n_routed_experts", ""},
    {"shared_expert_gate", "false"},
    {"num_nextn_predict_layers", "0"},
    {"attention_dropout", "0"},
    {"hidden_dropout", "0"},
    {"resid_pdrop", "0"},
    {"embd_pdrop", "0"},
    {"is_encoder_decoder", "false"},
    {"add_cross_attention", "false"},
    {"quantization_config", ""},
};

/// Keys without influence on what we compute.
constexpr const char* kHarmlessKeys[] = {
    "_attn_implementation",
    "_name_or_path",
    "auto_map",
    "chunk_size_feed_forward",
    "id2label",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "model_name",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "sep_token_id",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "vocab_pad_to_multiple_of",
};

/// Keys whose misspelling would quietly change the model: an unknown key near one of them is refused.
const std::vector<std::string>& shape_keys() {
  static const std::vector<std::string> keys = {
      "vocab_size",
      "hidden_size",
      "intermediate_size",
      "num_hidden_layers",
      "num_attention_heads",
      "num_key_value_heads",
      "head_dim",
      "hidden_act",
      "max_position_embeddings",
      "rms_norm_eps",
      "rope_theta",
      "rope_scaling",
      "tie_word_embeddings",
      "attention_bias",
      "qk_norm",
      "num_experts",
      "num_experts_per_tok",
      "num_expert_groups",
      "norm_topk_prob",
      "moe_intermediate_size",
      "shared_expert_intermediate_size",
      "use_router_scale",
      "router_aux_loss_coef",
      "initializer_range",
  };
  return keys;
}

constexpr std::array<std::pair<const char*, DType>, 3> kDTypes = {{
    {"float32", DType::kF32},
    {"bfloat16", DType::kBF16},
    {"float16", DType::kF16},
}};

[[noreturn]] void throw_not_implemented(JsonObject& o, const std::string& key, const std::string& only) {
  o.throw_wrong(key, str(only.empty() ? "none" : only, " (anything else is not implemented)"));
}

void refuse_unimplemented(JsonObject& o, const Architecture& architecture) {
  for (const NeutralKey& neutral : kNeutralKeys) {
    const json* value = o.find(neutral.key);
    const bool ok = value == nullptr || (*neutral.value != '\0' && *value == json::parse(neutral.value));
    if (!ok) throw_not_implemented(o, neutral.key, neutral.value);
  }
  if (o.has("sliding_window") && !architecture.windows_opt_in) throw_not_implemented(o, "sliding_window", "");
  if (const json* types = o.find("layer_types")) {
    const bool ok = types->is_array() &&
                    std::ranges::all_of(*types, [](const json& type) { return type == "full_attention"; });
    if (!ok) throw_not_implemented(o, "layer_types", "only \"full_attention\"");
  }
}

/// The two homes of rotary settings: rope_theta with rope_scaling, or (transformers 5) rope_parameters.
void read_rope(JsonObject& o, ModelConfig& c, bool theta_required) {
  std::optional<double> theta = o.number("rope_theta");
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* value = o.find(key);
    if (value == nullptr) continue;
    JsonObject rope(*value, str(o.where(), ": ", key));
    for (const char* type : {"rope_type", "type"}) {
      if (rope.text(type).value_or("default") != "default") throw_not_implemented(rope, type, "\"default\"");
    }
    if (rope.number("partial_rotary_factor").value_or(1.0) != 1.0)
      throw_not_implemented(rope, "partial_rotary_factor", "1");
    const std::optional<double> inner = rope.number("rope_theta");
    check<FileError>(!theta || !inner || *theta == *inner, o.where(), ": rope_theta ", theta.value_or(0),
                     " contradicts ", key, "'s ", inner.value_or(0));
    if (inner) theta = inner;
  }
  c.rope_theta = theta_required ? o.require(theta, "rope_theta") : theta.value_or(c.rope_theta);
}

void read_experts(JsonObject& o, ModelConfig& c, const Architecture& architecture) {
  const std::optional<int64_t> experts = o.integer("num_experts");
  const std::optional<int64_t> local = o.integer("num_local_experts");
  check<FileError>(!experts || !local || *experts == *local, o.where(), ": num_experts ", experts.value_or(0),
                   " contradicts num_local_experts ", local.value_or(0));
  const std::optional<int64_t> count = experts ? experts : local;
  if (!architecture.is_moe) {
    c.num_experts = count.value_or(0);
    c.num_experts_per_tok = o.integer("num_experts_per_tok").value_or(0);
    c.moe_intermediate_size = o.integer("moe_intermediate_size").value_or(0);
    c.shared_expert_intermediate_size = o.integer("shared_expert_intermediate_size").value_or(0);
    return;
  }
  c.num_experts = o.require(count, "num_experts");
  c.num_experts_per_tok = o.require(o.integer("num_experts_per_tok"), "num_experts_per_tok");
  // The released checkpoint has no key for the groups: one expert is kept in each of K groups.
  c.num_expert_groups =
      o.integer("num_expert_groups").value_or(architecture.moge_keys ? c.num_experts_per_tok : 1);
  c.moe_intermediate_size = o.require(o.integer("moe_intermediate_size"), "moe_intermediate_size");
  c.shared_expert_intermediate_size = o.integer("shared_expert_intermediate_size").value_or(0);
  c.norm_topk_prob = o.boolean("norm_topk_prob").value_or(false);
  c.use_router_scale = o.boolean("use_router_scale").value_or(architecture.moge_keys);
  c.router_aux_loss_coef = o.number("router_aux_loss_coef").value_or(0.001);
}

void read_biases_and_norms(JsonObject& o, ModelConfig& c, const Architecture& architecture) {
  c.attention_bias = o.boolean("attention_bias").value_or(architecture.attention_bias);
  if (!architecture.attention_bias_key && c.attention_bias != architecture.attention_bias)
    throw_not_implemented(o, "attention_bias", architecture.attention_bias ? "true" : "false");
  c.o_proj_bias = c.attention_bias && architecture.o_proj_bias;
  c.qk_norm = o.boolean("qk_norm").value_or(architecture.qk_norm);
  if (!architecture.moge_keys && c.qk_norm != architecture.qk_norm)
    throw_not_implemented(o, "qk_norm", architecture.qk_norm ? "true" : "false");
}

std::vector<int64_t> read_ids(JsonObject& o, const std::string& key) {
  const json* value = o.find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) return {*o.integer(key)};
  std::vector<int64_t> ids;
  for (const json& id : *value) {
    if (!id.is_number_integer()) o.throw_wrong(key, "a token id or a list of token ids");
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

DType read_dtype(JsonObject& o) {
  std::optional<DType> found;
  for (const char* key : {"torch_dtype", "dtype"}) {
    const std::optional<std::string> name = o.text(key);
    if (!name) continue;
    const auto* it = std::ranges::find_if(kDTypes, [&](const auto& entry) { return *name == entry.first; });
    if (it == kDTypes.end()) o.throw_wrong(key, "float32, bfloat16 or float16");
    check<FileError>(!found || *found == it->second, o.where(),
                     ": torch_dtype and dtype contradict each other");
    found = it->second;
  }
  return found.value_or(DType::kF32);
}

void read_other_keys(JsonObject& o, const json& root, ModelConfig& c, std::vector<std::string>& unknown) {
  for (const NeutralKey& neutral : kNeutralKeys) {
    if (const json* value = o.find(neutral.key)) c.other_keys[neutral.key] = value->dump();
  }
  for (const char* key : {"sliding_window", "layer_types"}) {
    if (const json* value = o.find(key)) c.other_keys[key] = value->dump();
  }
  for (const std::string& key : o.unread()) {
    const bool harmless = std::ranges::find(kHarmlessKeys, key) != std::end(kHarmlessKeys);
    if (!harmless) {
      const std::string meant = did_you_mean(key, shape_keys());
      check<FileError>(meant.empty(), o.where(), ": unknown key '", key, "'", meant);
      unknown.push_back(key);
    }
    c.other_keys[key] = root.at(key).dump();
  }
}

ModelConfig parse(std::string_view text, const std::string& source, std::vector<std::string>& unknown) {
  const json root = parse_json(text, source);
  JsonObject o(root, source);
  ModelConfig c;
  if (const json* names = o.find("architectures")) {
    if (!names->is_array()) o.throw_wrong("architectures", "a list of strings");
    for (const json& name : *names) {
      if (!name.is_string()) o.throw_wrong("architectures", "a list of strings");
      c.architectures.push_back(name.get<std::string>());
    }
  }
  c.model_type = o.require(o.text("model_type"), "model_type");
  const Architecture& architecture =
      find_architecture(c.model_type, c.architectures.empty() ? "" : c.architectures.front(), source);
  if (c.architectures.empty()) c.architectures = {architecture.class_name};
  refuse_unimplemented(o, architecture);

  const auto required = [&](const char* key) { return o.require(o.integer(key), key); };
  c.vocab_size = required("vocab_size");
  c.hidden_size = required("hidden_size");
  c.num_hidden_layers = required("num_hidden_layers");
  c.num_attention_heads = required("num_attention_heads");
  c.num_key_value_heads = architecture.kv_heads_key
                              ? required("num_key_value_heads")
                              : o.integer("num_key_value_heads").value_or(c.num_attention_heads);
  c.max_position_embeddings = required("max_position_embeddings");
  c.intermediate_size =
      architecture.is_moe ? o.integer("intermediate_size").value_or(0) : required("intermediate_size");
  c.head_dim = o.integer("head_dim").value_or(architecture.head_dim);
  if (c.head_dim == 0 && !o.has("head_dim")) {
    check<FileError>(c.num_attention_heads > 0 && c.hidden_size % c.num_attention_heads == 0, source,
                     ": hidden_size ", c.hidden_size, " is not divisible by num_attention_heads ",
                     c.num_attention_heads, " and there is no head_dim");
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  c.hidden_act = o.text("hidden_act").value_or(c.hidden_act);
  const std::optional<double> eps = o.number("rms_norm_eps");
  c.rms_norm_eps = architecture.moge_keys ? o.require(eps, "rms_norm_eps") : eps.value_or(c.rms_norm_eps);
  read_rope(o, c, architecture.moge_keys);
  c.tie_word_embeddings = o.boolean("tie_word_embeddings").value_or(false);
  read_biases_and_norms(o, c, architecture);
  read_experts(o, c, architecture);
  c.initializer_range = o.number("initializer_range").value_or(c.initializer_range);
  c.bos_token_id = o.integer("bos_token_id");
  c.eos_token_id = read_ids(o, "eos_token_id");
  c.pad_token_id = o.integer("pad_token_id");
  if (c.pad_token_id && *c.pad_token_id < 0) c.pad_token_id.reset();
  c.torch_dtype = read_dtype(o);
  read_other_keys(o, root, c, unknown);
  c.validate(source);
  return c;
}

}  // namespace

ModelConfig parse_model_config(std::string_view text, const std::string& source) {
  std::vector<std::string> unknown;
  return parse(text, source, unknown);
}

ModelConfig load_model_config(const std::filesystem::path& path) {
  const std::filesystem::path file = std::filesystem::is_directory(path) ? path / "config.json" : path;
  std::vector<std::string> unknown;
  ModelConfig config = parse(read_text_file(file, kMaxConfigBytes), file.string(), unknown);
  for (const std::string& key : unknown) log_warning(file.string(), ": unknown key '", key, "' is ignored");
  return config;
}

std::string ModelConfig::to_json() const {
  const Architecture& architecture = find_architecture(model_type, "", "to_json()");
  nlohmann::ordered_json o;
  o["architectures"] =
      architectures.empty() ? std::vector<std::string>{architecture.class_name} : architectures;
  o["model_type"] = model_type;
  o["vocab_size"] = vocab_size;
  o["hidden_size"] = hidden_size;
  if (intermediate_size > 0) o["intermediate_size"] = intermediate_size;
  o["num_hidden_layers"] = num_hidden_layers;
  o["num_attention_heads"] = num_attention_heads;
  o["num_key_value_heads"] = num_key_value_heads;
  o["head_dim"] = head_dim;
  o["hidden_act"] = hidden_act;
  o["max_position_embeddings"] = max_position_embeddings;
  o["rms_norm_eps"] = rms_norm_eps;
  o["rope_theta"] = rope_theta;
  o["tie_word_embeddings"] = tie_word_embeddings;
  if (architecture.attention_bias_key) o["attention_bias"] = attention_bias;
  if (architecture.moge_keys) o["qk_norm"] = qk_norm;
  if (is_moe()) {
    o["num_experts"] = num_experts;
    o["num_experts_per_tok"] = num_experts_per_tok;
    o["num_expert_groups"] = num_expert_groups;
    o["moe_intermediate_size"] = moe_intermediate_size;
    o["shared_expert_intermediate_size"] = shared_expert_intermediate_size;
    o["norm_topk_prob"] = norm_topk_prob;
    o["use_router_scale"] = use_router_scale;
    o["router_aux_loss_coef"] = router_aux_loss_coef;
  }
  o["initializer_range"] = initializer_range;
  if (bos_token_id) o["bos_token_id"] = *bos_token_id;
  if (eos_token_id.size() == 1) o["eos_token_id"] = eos_token_id.front();
  if (eos_token_id.size() > 1) o["eos_token_id"] = eos_token_id;
  if (pad_token_id) o["pad_token_id"] = *pad_token_id;
  for (const auto& [name, dtype] : kDTypes) {
    if (dtype == torch_dtype) o["torch_dtype"] = name;
  }
  for (const auto& [key, text] : other_keys) o[key] = nlohmann::ordered_json::parse(text);
  return o.dump(2) + "\n";
}

}  // namespace moge::spec
