#include "model/serving_weights.h"

#include <algorithm>
#include <cstring>

#include "core/transfer.h"
#include "io/copy_convert.h"
#include "model/weights.h"
#include "ops/quant_matmul.h"
#include "ops/quantize.h"
#include "ops/random_fill.h"

namespace moge::model {

namespace {

ServingLinear allocate_linear(Arena& arena, DType dtype, Shape shape) {
  ServingLinear linear{arena.alloc(dtype, shape), {}};
  if (dtype == DType::kBF16) return linear;
  linear.scale = shape.ndim() == 2 ? arena.alloc(DType::kF32, {shape[0]})
                                   : arena.alloc(DType::kF32, {shape[0], shape[1]});
  return linear;
}

ServingModel allocate_model(ExecContext& ctx, const spec::ModelConfig& config, DType dtype) {
  check<UsageError>(dtype == DType::kI8 || dtype == DType::kFP8E4M3 || dtype == DType::kBF16, "weights in ",
                    name_of(dtype), ": expected i8, fp8_e4m3 or bf16");
  Arena plan;
  allocate_serving_weights(plan, config, dtype);
  ServingModel model{config, dtype, Arena(plan.used_bytes(), "weights", ctx.backend), {}};
  model.weights = allocate_serving_weights(model.memory, config, dtype);
  return model;
}

/// Turns a layer as the checkpoint has it into the serving form, in host memory that is reused from layer to
/// layer.
class Converter {
 public:
  Converter(ExecContext& ctx, const spec::ModelConfig& config, DType dtype)
      : ctx_(ctx), cpu_{.pool = ctx.pool} {
    const int64_t D = config.hidden_size, F = expert_width(config);
    const int64_t elements =
        std::max({(config.q_dim() + 2 * config.kv_dim()) * D, 2 * F * D, D * config.q_dim()});
    const int64_t rows = std::max({config.q_dim() + 2 * config.kv_dim(), 2 * F, D});
    interleaved_ = Buffer(2 * F * D * size_of(DType::kBF16), "loader: interleaved rows");
    if (dtype == DType::kBF16) return;
    ExecContext planning = cpu_;
    planning.workspace = &workspace_;
    planning.planning = true;
    for (const Shape& shape : {Shape{1, D}, Shape{1, F}, Shape{1, config.q_dim()}})
      ops::quantize_rows(planning, {.q = Tensor(nullptr, dtype, shape),
                                    .scale = Tensor(nullptr, DType::kF32, {1}),
                                    .x = Tensor(nullptr, DType::kBF16, shape)});
    workspace_ = Workspace(workspace_.planned_bytes());
    cpu_.workspace = &workspace_;
    quantised_ = Buffer(elements, "loader: quantised rows");
    scales_ = Buffer(rows * size_of(DType::kF32), "loader: scales");
  }

  void plain(const Tensor& to, const Tensor& from) {
    if (to) upload(ctx_, to, from.data);
  }
  /// [N, K] bf16, row by row.
  void linear(const ServingLinear& to, const Tensor& from) {
    if (to.w.dtype == DType::kBF16) return upload(ctx_, to.w, from.data);
    const Tensor q(quantised_.data(), to.w.dtype, from.shape);
    const Tensor scale(scales_.data(), DType::kF32, {from.dim(0)});
    ops::quantize_rows(cpu_, {.q = q, .scale = scale, .x = from});
    upload(ctx_, to.w, q.data);
    upload(ctx_, to.scale, scale.data);
    // The host buffers are written again by the next call.
    synchronize(ctx_, "loading weights");
  }
  /// [2F, K] bf16, gate rows then up rows.
  void gate_up(const ServingLinear& to, const Tensor& from) {
    const int64_t F = from.dim(0) / 2, row_bytes = from.dim(1) * size_of(from.dtype);
    const auto* in = static_cast<const std::byte*>(from.data);
    parallel_for(*ctx_.pool, F, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (const bool up : {false, true})
          std::memcpy(interleaved_.data() + ops::gate_up_row(i, up) * row_bytes,
                      in + (i + (up ? F : 0)) * row_bytes, static_cast<size_t>(row_bytes));
    });
    linear(to, Tensor(interleaved_.data(), from.dtype, from.shape));
    synchronize(ctx_, "loading weights");
  }

 private:
  ExecContext& ctx_;
  ExecContext cpu_;
  Buffer interleaved_, quantised_, scales_;
  Workspace workspace_;
};

ServingLinear expert(const ServingLinear& all, int64_t e) {
  return {all.w[e], all.scale ? all.scale[e] : Tensor()};
}

void convert_layer(Converter& convert, const ServingLayer& to, const LayerWeights& from) {
  convert.plain(to.input_layernorm, from.input_layernorm);
  convert.linear(to.qkv_proj, from.qkv_proj);
  convert.plain(to.qkv_bias, from.qkv_bias);
  convert.plain(to.q_norm, from.q_norm);
  convert.plain(to.k_norm, from.k_norm);
  convert.linear(to.o_proj, from.o_proj);
  convert.plain(to.o_bias, from.o_bias);
  convert.plain(to.post_attention_layernorm, from.post_attention_layernorm);
  convert.plain(to.gate, from.gate);
  convert.plain(to.router_scale, from.router_scale);
  for (int64_t e = 0; e < from.gate_up_proj.dim(0); ++e) {
    convert.gate_up(expert(to.gate_up_proj, e), from.gate_up_proj[e]);
    convert.linear(expert(to.down_proj, e), from.down_proj[e]);
  }
}

}  // namespace

ServingWeights allocate_serving_weights(Arena& arena, const spec::ModelConfig& c, DType dtype) {
  const int64_t D = c.hidden_size, qkv_dim = c.q_dim() + 2 * c.kv_dim(), F = expert_width(c);
  const int64_t num_experts = c.num_experts + num_always_on_experts(c);
  const auto f32 = [&](bool present, Shape shape) {
    return present ? arena.alloc(DType::kF32, shape) : Tensor();
  };
  check<UsageError>(F % ops::kGateUpBlock == 0, "expert width ", F, ": expected a multiple of ",
                    ops::kGateUpBlock);
  ServingWeights w;
  w.embed_tokens = arena.alloc(DType::kBF16, {c.vocab_size, D});
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    ServingLayer layer;
    layer.input_layernorm = f32(true, {D});
    layer.qkv_proj = allocate_linear(arena, dtype, {qkv_dim, D});
    layer.qkv_bias = f32(c.attention_bias, {qkv_dim});
    layer.q_norm = f32(c.qk_norm, {c.head_dim});
    layer.k_norm = f32(c.qk_norm, {c.head_dim});
    layer.o_proj = allocate_linear(arena, dtype, {D, c.q_dim()});
    layer.o_bias = f32(c.o_proj_bias, {D});
    layer.post_attention_layernorm = f32(true, {D});
    layer.gate = f32(c.is_moe(), {c.num_experts, D});
    layer.router_scale = f32(c.use_router_scale, {c.num_experts});
    layer.gate_up_proj = allocate_linear(arena, dtype, {num_experts, 2 * F, D});
    layer.down_proj = allocate_linear(arena, dtype, {num_experts, D, F});
    w.layers.push_back(layer);
  }
  w.norm = f32(true, {D});
  w.lm_head = c.tie_word_embeddings ? w.embed_tokens : arena.alloc(DType::kBF16, {c.vocab_size, D});
  return w;
}

ServingModel load_serving_model(ExecContext& ctx, const std::filesystem::path& dir, DType dtype,
                                const LoadProgress& progress) {
  const spec::ModelConfig config = spec::load_model_config(dir);
  ServingModel model = allocate_model(ctx, config, dtype);
  io::CheckpointReader reader(dir);
  reader.check_finite(*ctx.pool);
  if (config.tie_word_embeddings) reader.skip("lm_head.weight");

  // One layer of host memory serves all: every layer of `staged` is the same views, under its own names.
  spec::ModelConfig one_layer = config;
  one_layer.num_hidden_layers = 1;
  one_layer.vocab_size = 1;  // embedding and head are copied from the file
  Arena plan;
  allocate_weights(plan, one_layer, DType::kBF16);
  Arena memory(plan.used_bytes(), "loader: one layer");
  Weights staged = allocate_weights(memory, one_layer, DType::kBF16);
  staged.layers.resize(static_cast<size_t>(config.num_hidden_layers), staged.layers.front());

  const std::vector<HfTensor> tensors = hf_tensors(staged, config);
  int64_t total = 0, done = 0;
  for (const HfTensor& t : tensors) total += t.file_shape.numel();
  Converter convert(ctx, config, dtype);
  Buffer table;
  size_t next = 0;
  const auto read_vocabulary = [&](const Tensor& to, const std::string& name) {
    const Tensor source = reader.take(name, to.shape);
    if (!table.data()) table = Buffer(to.bytes(), "loader: vocabulary table");
    const Tensor host(table.data(), DType::kBF16, to.shape);
    io::copy_convert(host, source, ctx.pool);
    upload(ctx, to, host.data);
    synchronize(ctx, "loading weights");
  };
  const auto read_staged = [&](const std::string& prefix) {
    for (; next < tensors.size() && tensors[next].name.starts_with(prefix); ++next) {
      const HfTensor& t = tensors[next];
      io::copy_convert(t.view, reader.take(t.name, t.file_shape).view(t.view.shape), ctx.pool);
      done += t.file_shape.numel();
    }
  };
  read_vocabulary(model.weights.embed_tokens, tensors[next++].name);
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    read_staged(str("model.layers.", l, "."));
    convert_layer(convert, model.weights.layers[l], staged.layers.front());
    if (progress) progress(done, total);
  }
  read_staged("model.norm.");
  convert.plain(model.weights.norm, staged.norm);
  if (!config.tie_word_embeddings) read_vocabulary(model.weights.lm_head, tensors[next++].name);
  synchronize(ctx, "loading weights");
  reader.finish();
  return model;
}

namespace {

/// Standard deviation of random_fill's eight-bit values.
double random_std(DType dtype) {
  return (dtype == DType::kI8 ? 127.0 : 448.0) / 4;
}

void fill_constant(ExecContext& ctx, const Tensor& t, float value) {
  if (!t) return;
  const std::vector<float> host(static_cast<size_t>(t.numel()), value);
  upload(ctx, t, host.data());
  synchronize(ctx, "random weights");
}

}  // namespace

ServingModel random_serving_model(ExecContext& ctx, spec::ModelConfig config, DType dtype, int64_t num_layers,
                                  uint64_t seed) {
  check<UsageError>(num_layers >= 0 && num_layers <= config.num_hidden_layers, num_layers,
                    " layers: the model has ", config.num_hidden_layers);
  if (num_layers > 0) config.num_hidden_layers = num_layers;
  ServingModel model = allocate_model(ctx, config, dtype);
  const auto std_dev = static_cast<float>(config.initializer_range);
  uint64_t stream = seed << 32;
  const auto normal = [&](const Tensor& t) {
    if (t) ops::random_fill(ctx, {.x = t, .std = std_dev, .seed = stream++});
  };
  const auto linear = [&](const ServingLinear& l) {
    normal(l.w);
    fill_constant(ctx, l.scale, static_cast<float>(std_dev / random_std(dtype)));
  };
  const ServingWeights& w = model.weights;
  normal(w.embed_tokens);
  for (const ServingLayer& layer : w.layers) {
    for (const Tensor& t : {layer.input_layernorm, layer.q_norm, layer.k_norm, layer.post_attention_layernorm,
                            layer.router_scale})
      fill_constant(ctx, t, 1);
    for (const Tensor& t : {layer.qkv_bias, layer.o_bias, layer.gate}) normal(t);
    for (const ServingLinear& l : {layer.qkv_proj, layer.o_proj, layer.gate_up_proj, layer.down_proj})
      linear(l);
  }
  fill_constant(ctx, w.norm, 1);
  if (!config.tie_word_embeddings) normal(w.lm_head);
  synchronize(ctx, "random weights");
  return model;
}

}  // namespace moge::model
