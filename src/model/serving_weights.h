// A model's parameters in the form that serving streams: products quantised per output channel (W8A8) or in
// bf16, gate and up rows interleaved for the fused SiLU (ops/quant_matmul.h), on the CPU or on a device.
#pragma once
#include <functional>
#include <vector>

#include "core/buffer.h"
#include "core/exec_context.h"
#include "spec/model_config.h"

namespace moge::model {

struct ServingLinear {
  Tensor w;      // [N, K] or [G, N, K]: i8 | fp8_e4m3 | bf16; absent where the model has none. i8 on the CPU
                 // packed (ops::pack_quant_weight)
  Tensor scale;  // [N] or [G, N] f32; absent for bf16
};

struct ServingLayer {
  Tensor input_layernorm;           // [D] f32
  ServingLinear qkv_proj;           // [(H + 2 KV) Dh, D]
  Tensor qkv_bias;                  // [(H + 2 KV) Dh] f32, only with attention_bias
  Tensor q_norm, k_norm;            // [Dh] f32, only with qk_norm
  ServingLinear o_proj;             // [D, H Dh]
  Tensor o_bias;                    // [D] f32, only with o_proj_bias
  Tensor post_attention_layernorm;  // [D] f32
  Tensor gate;                      // [E, D] f32: the router; only with E > 0. On the CPU packed
  Tensor router_scale;              // [E] f32, only with use_router_scale
  ServingLinear gate_up_proj;       // [E, 2F, D], rows interleaved; only with E > 0
  ServingLinear down_proj;          // [E, D, F]; only with E > 0
  // What every token visits: the shared experts, as one MLP of their whole width M (that of the checkpoint),
  // or a dense model's MLP. Absent in an MoE without shared experts.
  ServingLinear shared_gate_up_proj;  // [2M, D], rows interleaved
  ServingLinear shared_down_proj;     // [D, M]
};

struct ServingWeights {
  Tensor embed_tokens;  // [V, D] bf16
  std::vector<ServingLayer> layers;
  Tensor norm;     // [D] f32
  Tensor lm_head;  // [V, D] bf16; the same memory as embed_tokens when tied
};

/// UsageError for weights, and for cached keys and values, of a type that serving does not have. `what`
/// begins the message: the flag that chose it.
void check_weight_dtype(DType dtype, const char* what = "weights in");
void check_kv_dtype(DType dtype, const char* what = "keys and values in");

/// `dtype` is that of the products' weights: i8, fp8_e4m3 or bf16. Embedding and head stay bf16, norms,
/// biases and the router f32 (low bits cost most there: arXiv 2505.21411, section 4.2.2). Throws as
/// check_weight_dtype(), FileError for an expert width that serving cannot lay out.
ServingWeights allocate_serving_weights(Arena& arena, const spec::ModelConfig& config, DType dtype);

struct ServingModel {
  spec::ModelConfig config;
  DType dtype;
  Arena memory;
  ServingWeights weights;
};

/// Memory for a model's weights on ctx.backend's device, or the CPU without one. OutOfMemoryError.
ServingModel allocate_serving_model(ExecContext& ctx, const spec::ModelConfig& config, DType dtype);

/// What the CPU multiplies by fastest, in place; nothing to do for a device. Without it every product of many
/// rows packs its weight anew, and the router's of any.
void pack_for_serving(ExecContext& ctx, ServingWeights& weights);

/// Called with what is done and what there is in all: bytes of a checkpoint, layers of random weights.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

}  // namespace moge::model
