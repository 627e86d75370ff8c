#include "model/serving_random.h"

#include "core/transfer.h"
#include "ops/random_fill.h"

namespace moge::model {

namespace {

void fill_constant(ExecContext& ctx, const Tensor& t, float value) {
  if (!t) return;
  const std::vector<float> host(static_cast<size_t>(t.numel()), value);
  upload(ctx, t, host.data());
  synchronize(ctx, "random weights");
}

}  // namespace

ServingModel random_serving_model(ExecContext& ctx, spec::ModelConfig config, DType dtype, int64_t num_layers,
                                  uint64_t seed, const LoadProgress& progress) {
  check<UsageError>(num_layers >= 0 && num_layers <= config.num_hidden_layers, num_layers,
                    " layers: the model has ", config.num_hidden_layers);
  if (num_layers > 0) config.num_hidden_layers = num_layers;
  ServingModel model = allocate_serving_model(ctx, config, dtype);
  const auto std_dev = static_cast<float>(config.initializer_range);
  uint64_t stream = seed << 32;
  const auto normal = [&](const Tensor& t) {
    if (t)
      ops::random_fill(ctx, {.x = t, .std = std_dev, .seed = stream++, .of_bf16 = t.dtype == DType::kF32});
  };
  const auto linear = [&](const ServingLinear& l) {
    normal(l.w);
    if (l.scale) fill_constant(ctx, l.scale, static_cast<float>(std_dev / double{ops::fill_std({.x = l.w})}));
  };
  const ServingWeights& w = model.weights;
  normal(w.embed_tokens);
  int64_t done = 0;
  for (const ServingLayer& layer : w.layers) {
    for (const Tensor& t : {layer.input_layernorm, layer.q_norm, layer.k_norm, layer.post_attention_layernorm,
                            layer.router_scale})
      fill_constant(ctx, t, 1);
    for (const Tensor& t : {layer.qkv_bias, layer.o_bias, layer.gate}) normal(t);
    for (const ServingLinear& l : {layer.qkv_proj, layer.o_proj, layer.gate_up_proj, layer.down_proj,
                                   layer.shared_gate_up_proj, layer.shared_down_proj})
      linear(l);
    if (progress) progress(++done, std::ssize(w.layers));
  }
  fill_constant(ctx, w.norm, 1);
  if (!config.tie_word_embeddings) normal(w.lm_head);
  synchronize(ctx, "random weights");
  pack_for_serving(ctx, model.weights);
  return model;
}

}  // namespace moge::model
