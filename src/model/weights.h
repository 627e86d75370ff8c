// A model's parameters as named views. The same struct holds weights, gradients, fp32 masters and optimizer
// moments: whoever allocates it says which dtype. Fused tensors keep the Hugging Face parts as row slices.
#pragma once
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/thread_pool.h"
#include "spec/model_config.h"

namespace moge::model {

/// A dense layer is one without routed experts: E = 0, one always-on expert of width F = intermediate_size.
struct LayerWeights {
  Tensor input_layernorm;           // [D] f32
  Tensor qkv_proj;                  // [(H + 2 KV) Dh, D]: q_proj, k_proj, v_proj
  Tensor qkv_bias;                  // [(H + 2 KV) Dh] f32, only with attention_bias
  Tensor q_norm;                    // [Dh] f32, only with qk_norm
  Tensor k_norm;                    // [Dh] f32, only with qk_norm
  Tensor o_proj;                    // [D, H Dh]
  Tensor o_bias;                    // [D] f32, only with o_proj_bias
  Tensor post_attention_layernorm;  // [D] f32
  Tensor gate;                      // [E, D] f32: the router; only with E > 0
  Tensor router_scale;              // [E] f32, only with use_router_scale
  Tensor gate_up_proj;              // [E + S, 2F, D]: an expert's gate_proj, then its up_proj
  Tensor down_proj;                 // [E + S, D, F]
};

struct Weights {
  Tensor embed_tokens;  // [V, D]
  std::vector<LayerWeights> layers;
  Tensor norm;     // [D] f32
  Tensor lm_head;  // [V, D]; the same memory as embed_tokens when tied
  bool tied = false;
};

/// Experts that every token visits: the shared ones, or the whole MLP of a dense layer.
inline int64_t num_always_on_experts(const spec::ModelConfig& config) {
  return config.is_moe() ? config.num_shared_experts() : 1;
}
inline int64_t expert_width(const spec::ModelConfig& config) {
  return config.is_moe() ? config.moe_intermediate_size : config.intermediate_size;
}

/// Width of the always-on experts side by side, as one MLP; 0 without any.
inline int64_t always_on_width(const spec::ModelConfig& config) {
  return num_always_on_experts(config) * expert_width(config);
}

/// Expert rows of one token, K + S.
inline int64_t slots_per_token(const spec::ModelConfig& config) {
  return (config.is_moe() ? config.num_experts_per_tok : 0) + num_always_on_experts(config);
}

/// All tensors from one arena (a counting one plans). Matrices and embeddings get `dtype`; norms, biases and
/// the router stay f32.
Weights allocate_weights(Arena& arena, const spec::ModelConfig& config, DType dtype);

/// One stored tensor of the struct, once each (a tied lm_head is not listed).
struct Parameter {
  std::string name;  ///< "layers.3.qkv_proj"
  Tensor tensor;
  bool decay;  ///< weight decay applies: matrices, not norms, biases or router_scale
};
std::vector<Parameter> parameters(const Weights& weights);

/// One tensor under its Hugging Face name: a possibly strided view of the struct, and the file's shape, which
/// has the same elements in the same order (the shared expert's parts are a view of three dimensions).
struct HfTensor {
  std::string name;  ///< "model.layers.3.mlp.experts.5.up_proj.weight"
  Tensor view;
  Shape file_shape;
};
std::vector<HfTensor> hf_tensors(const Weights& weights, const spec::ModelConfig& config);

/// Fresh weights: normal(0, initializer_range), the projections that write to the residual stream scaled down
/// by sqrt(2 L) (GPT-2), norms and router_scale 1, biases 0. A function of config and seed alone.
void init_weights(const Weights& weights, const spec::ModelConfig& config, uint64_t seed, ThreadPool& pool);

}  // namespace moge::model
