// The forward pass of serving: the same blocks as transformer.h, made of fused ops over a bf16 and eight-bit
// data path (docs/design.md, "Life of a decode step"). Inference only; the CPU's reference ops define its
// results.
#pragma once
#include "core/exec_context.h"
#include "model/batch.h"
#include "model/serving_weights.h"

namespace moge::model {

/// T tokens' buffers, shared by all layers. R = T K rows of routed experts; S = 1 with shared experts, whose
/// MLP of width M (model/serving_weights.h) counts as one more expert, else 0.
struct ServingActivations {
  Tensor cos_sin;     // [T, Dh] f32
  Tensor x;           // [T, D] f32: the residual stream
  Tensor normed;      // [T, D] bf16
  Tensor q8;          // [T, D], the weights' dtype, absent for bf16
  Tensor q8_scale;    // [T] f32
  Tensor qkv;         // [T, H + 2 KV, Dh] bf16
  Tensor q;           // [T, H, Dh] bf16
  Tensor attn_out;    // [T, H, Dh] bf16
  Tensor attn_q8;     // [T, H Dh]
  Tensor attn_scale;  // [T] f32
  Tensor delta;       // [T, D] bf16: what a block adds to x
  // Only with routed experts:
  Tensor topk_ids;      // [T, K] i32
  Tensor topk_weights;  // [T, K] f32
  Tensor offsets;       // [E + S + 1] i32
  Tensor row_token;     // [R + S T] i32
  Tensor row_weight;    // [R + S T] f32
  Tensor slot_row;      // [T, K + S] i32
  Tensor h;             // [R, F] bf16
  Tensor h_q8;          // [R, F]
  Tensor h_scale;       // [R] f32
  Tensor down;          // [R + S T, D] bf16
  // Of the shared experts or of a dense model's MLP, which writes delta:
  Tensor shared_h;        // [T, M] bf16
  Tensor shared_h_q8;     // [T, M]
  Tensor shared_h_scale;  // [T] f32
};

ServingActivations allocate_serving_activations(Arena& arena, const spec::ModelConfig& config, DType weights,
                                                int64_t num_tokens);
/// The same memory seen as a batch of fewer tokens.
ServingActivations first_tokens(const ServingActivations& acts, const spec::ModelConfig& config,
                                int64_t num_tokens);

/// Tokens to normed hidden states: acts.normed [T, D]. `decode_rows` as in ops::PagedAttention.
void serving_fwd(ExecContext& ctx, const spec::ModelConfig& config, const ServingWeights& w,
                 const Batch& batch, const KvCache& cache, int decode_rows, const ServingActivations& acts);

/// logits [B, V] f32 of rows `rows` [B] i32 of acts.normed; all T = B rows without.
void serving_head(ExecContext& ctx, const ServingWeights& w, const Tensor& normed, const Tensor& rows,
                  const Tensor& logits);

}  // namespace moge::model
