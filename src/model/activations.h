// What a forward pass computes and a backward pass reads: planned before the run, allocated once.
#pragma once
#include <vector>

#include "core/buffer.h"
#include "spec/model_config.h"

namespace moge::model {

/// [T, heads, Dh] as the matrix [T, heads Dh].
inline Tensor flat(const Tensor& t) {
  return t.view({t.dim(0), t.dim(1) * t.dim(2)});
}

/// One layer. Dimension letters as in docs/glossary.md; A = H + KV heads that turn; R = T (K + S) expert
/// rows.
struct LayerActivations {
  Tensor x;              // [T, D]: the residual stream on entry
  Tensor attn_in;        // [T, D]: input_layernorm(x)
  Tensor attn_rstd;      // [T]
  Tensor qkv;            // [T, H + 2 KV, Dh]: the projection; q and k turned in place unless qk_norm
  Tensor qk;             // [T, H + KV, Dh]: normed and turned q and k; a slice of qkv without qk_norm
  Tensor qk_rstd;        // [T, H + KV], only with qk_norm
  Tensor attn_out;       // [T, H, Dh]
  Tensor attn_lse;       // [T, H], training only
  Tensor x_mid;          // [T, D]: x + attention
  Tensor mlp_in;         // [T, D]: post_attention_layernorm(x_mid)
  Tensor mlp_rstd;       // [T]
  Tensor router_logits;  // [T, E]
  Tensor router_probs;   // [T, E]
  Tensor router_lse;     // [T]
  Tensor topk_ids;       // [T, K] i32
  Tensor topk_weights;   // [T, K]
  Tensor offsets;        // [E + S + 1] i32
  Tensor row_token;      // [R] i32
  Tensor row_weight;     // [R]
  Tensor slot_row;       // [T, K + S] i32
  Tensor gate_up;        // [R, 2F]
  Tensor h;              // [R, F]
};

struct Activations {
  Tensor cos_sin;  // [T, Dh]
  std::vector<LayerActivations> layers;
  Tensor down;   // [R, D]: scratch of one layer
  Tensor x;      // [T, D]: the residual stream after the last layer
  Tensor final;  // [T, D]: norm(x), the head's input
  Tensor rstd;   // [T]
};

enum class Keep { kAllLayers, kOneLayer };  ///< training keeps each layer, inference reuses one

Activations allocate_activations(Arena& arena, const spec::ModelConfig& config, int64_t num_tokens,
                                 Keep keep);

/// The same memory seen as a batch of fewer tokens (views of the first rows).
Activations first_tokens(const Activations& acts, const spec::ModelConfig& config, int64_t num_tokens);

/// Gradients of one layer's activations, reused from layer to layer.
struct ActivationGrads {
  Tensor dx;             // [T, D]: of the residual stream, updated in place from the last layer to the first
  Tensor dnormed;        // [T, D]: of a norm's output
  Tensor dattn_out;      // [T, H, Dh]
  Tensor dqkv;           // [T, H + 2 KV, Dh]
  Tensor dqk;            // [T, H + KV, Dh], only with qk_norm; else a slice of dqkv
  Tensor dh;             // [R, F]
  Tensor drows;          // [R, D]: of the gathered expert inputs
  Tensor drow_weight;    // [R]
  Tensor dtopk_weights;  // [T, K]
  Tensor dprobs;         // [T, E]
  Tensor dlse;           // [T]
  Tensor dlogits;        // [T, E]
  Tensor balance_loss;   // [L]: each layer's share of the auxiliary losses, coefficients included
  Tensor z_loss;         // [L]
};

ActivationGrads allocate_activation_grads(Arena& arena, const spec::ModelConfig& config, int64_t num_tokens);
ActivationGrads first_tokens(const ActivationGrads& grads, const spec::ModelConfig& config,
                             int64_t num_tokens);

}  // namespace moge::model
