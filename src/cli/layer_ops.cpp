#include "cli/layer_ops.h"

#include <algorithm>

#include "model/weights.h"
#include "ops/attention.h"
#include "ops/decode_inputs.h"
#include "ops/embedding.h"
#include "ops/quantize.h"
#include "ops/random_fill.h"
#include "ops/residual_norm.h"
#include "ops/rope.h"
#include "ops/rope_kv_write.h"
#include "ops/sampling.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

constexpr size_t kCalls = 8;        ///< of a prompt's attention
constexpr int64_t kMaxCaches = 64;  ///< that decoding attention goes round

}  // namespace

LayerOp residual_norm_op(const LayerSetup& layer, int64_t T, int64_t added, const Tensor& slot_row) {
  const int64_t D = layer.D;
  const bool quantised = layer.dtype != DType::kBF16, moe = layer.config.is_moe();
  const bool bf16 = !quantised || (moe && !slot_row);
  const model::ServingActivations& a = layer.acts;
  const ops::ResidualNorm call{.x = a.x,
                               .delta = a.delta,
                               .rows = slot_row ? a.down : Tensor(),
                               .slot_row = slot_row,
                               .weight = layer.norm,
                               .normed = bf16 ? a.normed : Tensor(),
                               .q = a.q8,
                               .q_scale = a.q8_scale,
                               .keep_x = moe && !slot_row};
  return {.what = slot_row ? "norm_combine" : "norm",
          .op = "residual_norm",
          .shape = {{"rows", T}, {"width", D}, {"slots", added}},
          .dtype = name_of(layer.dtype),
          .bytes = static_cast<double>(T * D *
                                       ((call.keep_x ? 4 : 8) + 2 + (slot_row ? 2 * added : 0) +
                                        (bf16 ? 2 : 0) + (quantised ? 1 : 0))),
          .flops = 0,
          .step = {[call](ExecContext& ctx, size_t) { ops::residual_norm(ctx, call); }}};
}

LayerOp quantize_op(const Tensor& x, const Tensor& q, const Tensor& scale) {
  const ops::QuantizeRows call{.q = q, .scale = scale, .x = x};
  return {.what = "quantize",
          .op = "quantize_rows",
          .shape = {{"rows", x.dim(0)}, {"width", x.dim(1)}},
          .dtype = name_of(q.dtype),
          .bytes = static_cast<double>(x.numel() * 3),
          .flops = 0,
          .step = {[call](ExecContext& ctx, size_t) { ops::quantize_rows(ctx, call); }}};
}

LayerOp rope_kv_write_op(LayerSetup& layer, int64_t T) {
  const int64_t H = layer.config.num_attention_heads, KV = layer.config.num_key_value_heads,
                Dh = layer.config.head_dim;
  ops::RopeKvWrite call{.q = layer.acts.q, .qkv = layer.acts.qkv, .cos_sin = layer.acts.cos_sin};
  layer.place([&](Arena& arena) {
    layer.kv = layer.pages(arena, (T + kPageSize - 1) / kPageSize);
    call.slots = arena.alloc(DType::kI32, {T});
  });
  call.k_pages = layer.kv.k, call.v_pages = layer.kv.v;
  call.k_scales = layer.kv.k_scales, call.v_scales = layer.kv.v_scales;
  layer.upload_iota(call.slots);
  return {.what = "rope_kv_write",
          .op = "rope_kv_write",
          .shape = {{"rows", T}, {"heads", H}, {"kv_heads", KV}, {"head_dim", Dh}},
          .dtype = name_of(layer.kv_dtype),
          .bytes = static_cast<double>(T * Dh * (4 * H + 2 * KV * (2 + size_of(layer.kv_dtype)))),
          .flops = 0,
          .step = {[call](ExecContext& ctx, size_t) { ops::rope_kv_write(ctx, call); }}};
}

LayerOp attention_op(LayerSetup& layer, const Attended& at) {
  const int64_t per_sequence = (at.context + kPageSize - 1) / kPageSize, P = per_sequence * at.sequences,
                batch = at.sequences;
  const int64_t H = layer.config.num_attention_heads, KV = layer.config.num_key_value_heads,
                Dh = layer.config.head_dim, element = size_of(layer.kv_dtype);
  const bool decodes = at.decodes();
  const int64_t cache_bytes = 2 * P * KV * kPageSize * Dh * element;
  const int64_t l2_bytes = layer.backend.info().l2_bytes;
  const int64_t copies = decodes ? std::clamp<int64_t>(3 * l2_bytes / cache_bytes + 1, 1, kMaxCaches) : 1;
  ops::PagedAttention call{
      .out = layer.acts.attn_out, .q = layer.acts.q, .scale = 0.1F, .decode_rows = decodes ? 1 : 0};
  model::KvPages cache = layer.kv;
  layer.place([&](Arena& arena) {
    if (decodes) cache = layer.pages(arena, P * copies);
    call.block_table = arena.alloc(DType::kI32, {batch * copies, per_sequence});
    call.cu_q = arena.alloc(DType::kI32, {batch + 1});
    call.kv_lens = arena.alloc(DType::kI32, {batch});
  });
  if (decodes)
    for (const Tensor& t : {cache.k, cache.v, cache.k_scales, cache.v_scales})
      if (t) ops::random_fill(layer.ctx, {.x = t, .std = 1e-2F, .seed = 5});
  call.k_pages = cache.k, call.v_pages = cache.v;
  call.k_scales = cache.k_scales, call.v_scales = cache.v_scales;
  layer.upload_iota(call.block_table);
  layer.upload_iota(call.cu_q, at.queries);
  layer.upload_iota(call.kv_lens, 0, at.context);
  const double positions =
      decodes ? static_cast<double>(at.context) : static_cast<double>(at.context + 1) / 2;
  ordered_json shape = {{"heads", H}, {"kv_heads", KV}, {"head_dim", Dh}};
  if (decodes)
    shape.update({{"batch", batch}, {"context", at.context}});
  else
    shape.update({{"sequences", batch}, {"length", at.context}});
  return {.what = decodes ? "attention" : "prefill",
          .op = decodes ? "attention" : "prefill_attention",
          .shape = shape,
          .dtype = name_of(layer.kv_dtype),
          .bytes = 2.0 * static_cast<double>(batch * at.context * KV * Dh * element),
          .flops = 4 * static_cast<double>(at.tokens() * H * Dh) * positions,
          .step = {.call =
                       [call, batch, copies](ExecContext& ctx, size_t i) {
                         ops::PagedAttention one = call;
                         const int64_t copy = static_cast<int64_t>(i) % copies;
                         one.block_table = call.block_table.slice(0, copy * batch, (copy + 1) * batch);
                         ops::paged_attention(ctx, one);
                       },
                   .calls = std::max<size_t>(kCalls, static_cast<size_t>(copies))}};
}

LayerOp step_inputs_op(LayerSetup& layer, const Attended& at) {
  const int64_t T = at.tokens();
  const bool decodes = at.decodes();
  ops::DecodeInputs inputs{.page_size = kPageSize};
  ops::RopeTable table{.cos_sin = layer.acts.cos_sin, .theta = layer.config.rope_theta};
  ops::EmbeddingFwd embedding{.y = layer.acts.x, .weight = layer.products[kHead].weights.w[0]};
  layer.place([&](Arena& arena) {
    for (Tensor* t : {&inputs.kv_lens, &inputs.positions, &inputs.slots, &inputs.tokens})
      *t = arena.alloc(DType::kI32, {T});
    inputs.steps = arena.alloc(DType::kI64, {T});
    inputs.block_table = arena.alloc(DType::kI32, {T, 2});
  });
  table.positions = inputs.positions;
  embedding.ids = inputs.tokens;
  layer.upload_iota(inputs.kv_lens, 0, -1);  // idle: lengths that do not run away over the repetitions
  layer.upload_iota(inputs.tokens, 1, 0, layer.config.vocab_size);
  for (const Tensor& t : {inputs.positions, inputs.slots, inputs.steps, inputs.block_table})
    layer.backend.fill_bytes(t.data, 0, t.bytes());
  const char* const name = decodes ? "step_inputs" : "prompt_inputs";
  return {.what = name,
          .op = name,
          .shape = {{"rows", T}, {"width", layer.D}, {"head_dim", layer.config.head_dim}},
          .dtype = "bf16",
          .bytes = static_cast<double>(T * layer.D * 6),
          .flops = 0,
          .step = {.call =
                       [=](ExecContext& ctx, size_t) {
                         if (decodes) ops::decode_inputs(ctx, inputs);
                         ops::rope_table(ctx, table);
                         ops::embedding_fwd(ctx, embedding);
                       },
                   .part = StepPart::kBegin}};
}

LayerOp sampling_op(LayerSetup& layer, const Tensor& logits) {
  const int64_t B = logits.dim(0);
  ops::Sampling call{.logits = logits};
  layer.place([&](Arena& arena) {
    const auto rows = [&](DType dtype) { return arena.alloc(dtype, {B}); };
    call.tokens = rows(DType::kI32);
    for (Tensor* t : {&call.temperature, &call.top_p, &call.min_p, &call.repetition_penalty,
                      &call.presence_penalty, &call.frequency_penalty})
      *t = rows(DType::kF32);
    call.top_k = rows(DType::kI32);
    call.seeds = rows(DType::kI64);
    call.steps = rows(DType::kI64);
  });
  for (const Tensor& t : {call.temperature, call.top_k, call.top_p, call.min_p, call.repetition_penalty,
                          call.presence_penalty, call.frequency_penalty, call.seeds, call.steps})
    layer.backend.fill_bytes(t.data, 0, t.bytes());  // greedy
  return {.what = "greedy",
          .op = "sampling",
          .shape = {{"rows", B}, {"vocab", layer.config.vocab_size}},
          .dtype = "f32",
          .bytes = static_cast<double>(B * layer.config.vocab_size * 4),
          .flops = 0,
          .step = {.call = [call](ExecContext& ctx, size_t) { ops::sampling(ctx, call); },
                   .part = StepPart::kEnd}};
}

}  // namespace moge::cli
