#include "spec/model_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "refusal.h"

namespace moge::spec {
namespace {

using nlohmann::json;

json pangu() {
  return json::parse(R"({
    "architectures": ["PanguProMoEForCausalLM"], "model_type": "PanguProMoE", "vocab_size": 1000,
    "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "hidden_act": "silu", "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 16000000.0,
    "tie_word_embeddings": false, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 256,
    "num_experts_per_tok": 4, "num_experts": 64, "router_aux_loss_coef": 0.001, "initializer_range": 0.02})");
}

json llama() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1000, "hidden_size": 256,
    "intermediate_size": 640, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": -1,
    "torch_dtype": "bfloat16", "use_cache": true, "attention_dropout": 0.0, "rope_scaling": null})");
}

json qwen3_moe() {
  json o = pangu();
  o["architectures"] = {"Qwen3MoeForCausalLM"};
  o["model_type"] = "qwen3_moe";
  o.erase("shared_expert_intermediate_size");
  o["norm_topk_prob"] = true;
  o["head_dim"] = 128;
  return o;
}

ModelConfig parse(const json& o) {
  return parse_model_config(o.dump(), "config.json");
}

json with(json o, const std::string& key, const json& value) {
  o[key] = value;
  return o;
}

std::string refusal(const json& o) {
  return test::refusal([&] { parse(o); });
}

void expect_refused(const json& o, const std::string& part) {
  const std::string message = refusal(o);
  EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(message.rfind("config.json: ", 0), 0U) << message;
}

TEST(ModelConfig, PanguDefaults) {
  const ModelConfig c = parse(pangu());
  EXPECT_EQ(c.num_expert_groups, 4);  // no key: one group per kept expert
  EXPECT_EQ(c.experts_per_group(), 16);
  EXPECT_EQ(c.topk_per_group(), 1);
  EXPECT_EQ(c.num_shared_experts(), 4);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.kv_dim(), 128);
  EXPECT_TRUE(c.attention_bias && c.o_proj_bias && c.use_router_scale);
  EXPECT_FALSE(c.qk_norm || c.norm_topk_prob || c.tie_word_embeddings);
  EXPECT_EQ(c.rope_theta, 16e6);
}

TEST(ModelConfig, PanguOwnKeys) {
  json o = pangu();
  o["num_expert_groups"] = 2;
  o["use_router_scale"] = false;
  o["qk_norm"] = true;
  o["attention_bias"] = false;
  const ModelConfig c = parse(o);
  EXPECT_EQ(c.topk_per_group(), 2);
  EXPECT_EQ(c.experts_per_group(), 32);
  EXPECT_TRUE(c.qk_norm);
  EXPECT_FALSE(c.use_router_scale || c.attention_bias || c.o_proj_bias);
}

TEST(ModelConfig, DenseRelatives) {
  const ModelConfig c = parse(llama());
  EXPECT_FALSE(c.is_moe() || c.qk_norm || c.attention_bias || c.use_router_scale);
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_EQ(c.eos_token_id, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_FALSE(c.pad_token_id.has_value());
  EXPECT_EQ(c.torch_dtype, DType::kBF16);
  const ModelConfig biased = parse(with(llama(), "attention_bias", true));
  EXPECT_TRUE(biased.attention_bias && biased.o_proj_bias);

  json o = with(with(llama(), "model_type", "qwen2"), "architectures", {"Qwen2ForCausalLM"});
  expect_refused(o, "key 'num_key_value_heads' is missing");
  o["num_key_value_heads"] = 2;
  o["sliding_window"] = 4096;
  o["use_sliding_window"] = false;
  const ModelConfig qwen2 = parse(o);
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_FALSE(qwen2.o_proj_bias);

  o["model_type"] = "qwen3";
  o["architectures"] = {"Qwen3ForCausalLM"};
  const ModelConfig qwen3 = parse(o);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.attention_bias);
  EXPECT_EQ(qwen3.head_dim, 128);
}

TEST(ModelConfig, Qwen3Moe) {
  const ModelConfig c = parse(qwen3_moe());
  EXPECT_EQ(c.num_expert_groups, 1);
  EXPECT_EQ(c.topk_per_group(), 4);
  EXPECT_EQ(c.num_shared_experts(), 0);
  EXPECT_TRUE(c.qk_norm && c.norm_topk_prob);
  EXPECT_FALSE(c.use_router_scale);
  EXPECT_EQ(c.q_dim(), 512);

  json renamed = qwen3_moe();  // as transformers 5 writes it
  renamed["num_local_experts"] = renamed["num_experts"];
  renamed.erase("num_experts");
  renamed.erase("rope_theta");
  renamed["rope_parameters"] = {{"rope_theta", 16e6}, {"rope_type", "default"}};
  renamed["dtype"] = "float32";
  EXPECT_EQ(parse(renamed), c);
  expect_refused(with(qwen3_moe(), "num_local_experts", 8), "contradicts num_local_experts 8");
}

TEST(ModelConfig, NamesUnsupportedModels) {
  expect_refused(with(pangu(), "model_type", "mixtral"),
                 "model_type 'mixtral' is not supported; supported: llama, "
                 "qwen2, qwen3, qwen3_moe, PanguProMoE");
  expect_refused(with(pangu(), "architectures", {"PanguProMoEV2ForCausalLM"}), "PanguProMoEV2");
  expect_refused(with(pangu(), "model_type", "PanguProMoEV2"), "is another model");
  expect_refused(with(llama(), "architectures", {"LlamaForSequenceClassification"}),
                 "expected 'LlamaForCausalLM'");
  json o = pangu();
  o.erase("model_type");
  expect_refused(o, "key 'model_type' is missing");
}

TEST(ModelConfig, RefusesWhatIsNotImplemented) {
  expect_refused(with(llama(), "rope_scaling", {{"rope_type", "llama3"}, {"factor", 32.0}}), "rope_type");
  expect_refused(with(llama(), "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}), "linear");
  expect_refused(with(llama(), "sliding_window", 4096), "sliding_window");
  expect_refused(with(qwen3_moe(), "use_sliding_window", true), "use_sliding_window");
  expect_refused(with(qwen3_moe(), "decoder_sparse_step", 2), "decoder_sparse_step");
  expect_refused(with(qwen3_moe(), "mlp_only_layers", {0}), "mlp_only_layers");
  expect_refused(with(llama(), "hidden_act", "gelu"), "hidden_act 'gelu'");
  expect_refused(with(llama(), "final_logit_softcapping", 30.0), "final_logit_softcapping");
  expect_refused(with(llama(), "partial_rotary_factor", 0.5), "partial_rotary_factor");
  expect_refused(with(llama(), "quantization_config", {{"quant_method", "gptq"}}), "quantization_config");
  expect_refused(with(llama(), "mlp_bias", true), "mlp_bias");
  expect_refused(with(llama(), "qk_norm", true), "qk_norm");
  expect_refused(with(llama(), "layer_types", {"sliding_attention"}), "layer_types");
  expect_refused(with(pangu(), "routed_scaling_factor", 2.5), "routed_scaling_factor");
}

TEST(ModelConfig, RefusesContradictions) {
  expect_refused(with(pangu(), "num_expert_groups", 3),
                 "num_experts 64 is not divisible by num_expert_groups 3");
  expect_refused(with(pangu(), "num_expert_groups", 8),
                 "num_experts_per_tok 4 is not divisible by "
                 "num_expert_groups 8");
  expect_refused(with(with(pangu(), "num_experts_per_tok", 128), "num_expert_groups", 1),
                 "exceeds num_experts 64");
  expect_refused(with(pangu(), "head_dim", 63), "head_dim 63 is odd");
  expect_refused(with(pangu(), "num_key_value_heads", 3), "not divisible by num_key_value_heads 3");
  expect_refused(with(pangu(), "shared_expert_intermediate_size", 100),
                 "not divisible by moe_intermediate_size 64");
  expect_refused(with(pangu(), "num_attention_heads", 0), "num_attention_heads 0");
  expect_refused(with(pangu(), "hidden_size", -256), "hidden_size -256");
  expect_refused(with(pangu(), "num_experts", 0), "num_experts 0");
  expect_refused(with(pangu(), "hidden_size", int64_t{1} << 40), "hidden_size");
  expect_refused(with(pangu(), "vocab_size", 1.5), "expected an integer, got 1.5");
  expect_refused(with(pangu(), "rms_norm_eps", 0), "rms_norm_eps 0");
  expect_refused(with(pangu(), "rope_theta", -1), "rope_theta -1");
  expect_refused(with(llama(), "num_experts", 8), "is dense");
  expect_refused(with(llama(), "bos_token_id", 1000), "bos_token_id 1000: expected 0 to 999");
  expect_refused(with(llama(), "eos_token_id", {2, "x"}), "eos_token_id");
  expect_refused(with(llama(), "dtype", "float16"), "contradict");
  expect_refused(with(llama(), "torch_dtype", "int4"), "torch_dtype");
}

TEST(ModelConfig, RefusesMisspeltKeysAndKeepsUnknownOnes) {
  expect_refused(with(pangu(), "num_expert_group", 2),
                 "unknown key 'num_expert_group'; did you mean "
                 "'num_expert_groups'?");
  const ModelConfig c = parse(with(llama(), "made_by", {{"who", "me"}}));
  EXPECT_EQ(c.other_keys.at("made_by"), R"({"who":"me"})");
  EXPECT_EQ(c.other_keys.at("use_cache"), "true");
}

TEST(ModelConfig, RoundTrip) {
  for (const json& o : {pangu(), llama(), qwen3_moe(), with(pangu(), "num_expert_groups", 1)}) {
    const ModelConfig c = parse(o);
    EXPECT_EQ(parse_model_config(c.to_json(), "again"), c) << c.to_json();
  }
}

TEST(ModelConfig, LoadsEveryShippedModel) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(MOGE_SOURCE_DIR "/configs/models")) {
    const ModelConfig c = load_model_config(entry.path());
    EXPECT_EQ(parse_model_config(c.to_json(), entry.path().string()), c);
    ++count;
  }
  EXPECT_GE(count, 8);
  EXPECT_THROW(load_model_config(MOGE_SOURCE_DIR "/configs/models/absent"), FileError);
}

}  // namespace
}  // namespace moge::spec
