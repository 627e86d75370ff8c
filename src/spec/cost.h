// Every formula that turns a ModelConfig into parameters, FLOPs and bytes. MFU, rooflines, benchmarks, memory
// plans and the simulator all call these; nobody else multiplies sizes. Letters as in model_config.h.
#pragma once
#include <cstdint>
#include <string>

#include "core/dtype.h"
#include "spec/model_config.h"

namespace moge::spec {

/// A Linear [out, in] without its bias.
struct LinearShape {
  int64_t out = 0;
  int64_t in = 0;
  int64_t weights() const { return out * in; }
  /// Of `rows` rows; a multiply-add is two.
  double flops(double rows) const { return 2.0 * rows * static_cast<double>(weights()); }
};

/// The matmuls of one layer, fused as they are run; zero where a model has none.
struct LayerLinears {
  LinearShape qkv;             ///< [H Dh + 2 KV Dh, D]
  LinearShape o;               ///< [D, H Dh]
  LinearShape mlp_gate_up;     ///< dense: [2 intermediate_size, D]
  LinearShape mlp_down;        ///< dense: [D, intermediate_size]
  LinearShape router;          ///< [E, D]
  LinearShape expert_gate_up;  ///< one routed expert: [2 F, D]
  LinearShape expert_down;     ///< one routed expert: [D, F]
  LinearShape shared_gate_up;  ///< [2 shared_expert_intermediate_size, D]
  LinearShape shared_down;     ///< [D, shared_expert_intermediate_size]
};

LayerLinears layer_linears(const ModelConfig& config);
inline LinearShape lm_head_linear(const ModelConfig& config) {
  return {config.vocab_size, config.hidden_size};
}

/// FLOPs of one layer's attention for one query position that attends to one position: 4 H Dh (q k^T, p v).
int64_t attention_flops_per_position(const ModelConfig& config);
/// Elements of one layer's keys and values for one position: 2 KV Dh.
int64_t kv_elements_per_position(const ModelConfig& config);

/// Parameters of the whole model by part. A Linear [out, in] has out * in weights.
struct ParameterCount {
  int64_t embedding = 0;       ///< V D
  int64_t lm_head = 0;         ///< V D; 0 when tied to the embedding
  int64_t attention = 0;       ///< L (2 D H Dh + 2 D KV Dh), q, k, v, o
  int64_t attention_bias = 0;  ///< L (H Dh + 2 KV Dh), and L D for o_proj
  int64_t dense_mlp = 0;       ///< L 3 D intermediate_size (gate, up, down)
  int64_t router = 0;          ///< L E D, and L E for router_scale
  int64_t routed_experts = 0;  ///< L E 3 D F
  int64_t shared_expert = 0;   ///< L 3 D shared_expert_intermediate_size
  int64_t norms = 0;           ///< L 2 D + D, and L 2 Dh with qk_norm

  int64_t total() const {
    return embedding + lm_head + attention + attention_bias + dense_mlp + router + routed_experts +
           shared_expert + norms;
  }
};

ParameterCount parameter_count(const ModelConfig& config);
/// The same with K instead of E routed experts: what one token uses. The embedding table counts in full, as
/// in the report's 16.50 B (arXiv 2505.21411, table 1).
ParameterCount active_parameter_count(const ModelConfig& config);

inline int64_t parameters(const ModelConfig& config) {
  return parameter_count(config).total();
}
inline int64_t active_parameters(const ModelConfig& config) {
  return active_parameter_count(config).total();
}

enum class Phase {
  kDecode,    ///< one token that attends to `context` positions
  kPrefill,   ///< forward, the mean over a sequence of `context` tokens: causal attention counts as half
  kTraining,  ///< 3 x prefill: the backward pass computes two matmuls for each of the forward's, without
              ///< recompute
};

/// FLOPs of one token by part; a multiply-add is two. Only matmuls count (norms, rotary positions, softmax
/// and the embedding look-up are bound by bandwidth), as usual for MFU (PaLM, arXiv 2204.02311, appendix B;
/// there attention is not halved).
struct FlopCount {
  double attention_projections = 0;  ///< 2 per weight of q, k, v, o
  double attention_core = 0;         ///< L 4 H Dh x attended positions (q k^T and p v)
  double dense_mlp = 0;              ///< 2 per weight
  double router = 0;                 ///< L 2 E D
  double routed_experts = 0;         ///< L K 6 D F
  double shared_expert = 0;          ///< 2 per weight
  double lm_head = 0;  ///< 2 V D. Serving computes it for sampled tokens only: leave it out for others

  double total() const {
    return attention_projections + attention_core + dense_mlp + router + routed_experts + shared_expert +
           lm_head;
  }
};

FlopCount flop_count(const ModelConfig& config, int64_t context, Phase phase);
inline double flops_per_token(const ModelConfig& config, int64_t context, Phase phase) {
  return flop_count(config, context, phase).total();
}

/// FLOPs of serving `prompts` prompts of `tokens` each up to their first drawn tokens: the head computes one
/// row of logits for each.
double prompt_flops(const ModelConfig& config, int64_t prompts, int64_t tokens);

/// Bytes of all weights in one dtype.
int64_t weight_bytes(const ModelConfig& config, DType dtype);
/// Keys and values of one token: 2 L KV Dh elements.
int64_t kv_bytes_per_token(const ModelConfig& config, DType dtype);
/// What one decode step of one sequence has to read, the numerator of the bandwidth roof: the active weights
/// (of the embedding table only one row, unless it is the tied lm_head) and the KV entries of `context`
/// positions.
int64_t decode_read_bytes(const ModelConfig& config, int64_t context, DType weights, DType kv);

/// Element types of serving: the products' weights (attention, experts, dense MLP), embedding and head, the
/// cache.
struct ServingFormat {
  DType weights = DType::kBF16;
  DType vocabulary = DType::kBF16;
  DType kv = DType::kBF16;
};

/// Routed experts of one layer that a batch of `num_tokens` hits when routing is uniform: in each group of n
/// experts n (1 - (1 - K'/n)^tokens).
double expected_distinct_experts(const ModelConfig& config, int64_t num_tokens);
/// What one decode step of `batch` sequences of `context` tokens has to read: the weights that the batch hits
/// (once each), one embedding row a sequence, the cache. Eight-bit scales and activations are not counted.
double decode_step_bytes(const ModelConfig& config, int64_t batch, int64_t context,
                         const ServingFormat& format);
/// What one pass over `prompts` prompts of `tokens` each has to move: the same weights, an embedding row a
/// token, and the cache's entries of the prompts, which it writes.
double prompt_bytes(const ModelConfig& config, int64_t prompts, int64_t tokens, const ServingFormat& format);

/// Bytes by purpose; zero where a purpose does not occur.
struct MemoryPlan {
  int64_t weights = 0;
  int64_t kv_cache = 0;
  int64_t activations = 0;
  int64_t logits = 0;
  int64_t gradients = 0;
  int64_t master_weights = 0;
  int64_t optimizer_moments = 0;

  int64_t total() const {
    return weights + kv_cache + activations + logits + gradients + master_weights + optimizer_moments;
  }
};

/// Weights, and a cache of `cached_tokens` positions; activations for `batch_tokens` of one step (the widest
/// layer counts once, since layers take turns) and logits of `batch_sequences` rows in fp32.
MemoryPlan serving_memory(const ModelConfig& config, DType weights, DType kv, int64_t cached_tokens,
                          int64_t batch_tokens, int64_t batch_sequences);

struct TrainingSetup {
  DType compute = DType::kBF16;  ///< weights
  DType activations = DType::kF32;
  DType gradients = DType::kF32;
  DType moments = DType::kF32;     ///< AdamW's m and v
  bool master_weights = true;      ///< an fp32 copy; not needed when compute is fp32
  int64_t micro_batch_tokens = 0;  ///< tokens whose activations are alive at once
  int64_t logit_rows = 0;          ///< rows of logits alive at once (the loss walks the vocabulary in chunks)
};

/// On one device without recompute. Activations are an estimate: activation_elements_per_token(), without the
/// ops' workspace; the trainer prints what it planned exactly (train::TrainStep::MemoryPlan).
MemoryPlan training_memory(const ModelConfig& config, const TrainingSetup& setup);

/// Elements that the backward pass of one layer needs from its forward, for one token: both residual inputs
/// and both norm outputs (4 D), q, k, v and the attention output (2 H Dh + 2 KV Dh), and for an MLP of width
/// W its gate, up and product (3 W), where W = K F + the shared width for an MoE, which also keeps the
/// router's probabilities (E) and each chosen expert's output (K D) for the gradient of its weight.
int64_t activation_elements_per_token(const ModelConfig& config);

}  // namespace moge::spec
