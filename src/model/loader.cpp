#include "model/loader.h"

#include <cstring>

#include "io/copy_convert.h"
#include "ops/matmul.h"

namespace moge::model {

Model allocate_model(const spec::ModelConfig& config, DType dtype) {
  Arena plan;
  allocate_weights(plan, config, dtype);
  Model model{config, Arena(plan.used_bytes(), "weights"), {}};
  model.weights = allocate_weights(model.memory, config, dtype);
  return model;
}

void take_tied_head(io::CheckpointReader& reader, const spec::ModelConfig& config) {
  constexpr const char* kHead = "lm_head.weight";
  constexpr const char* kEmbedding = "model.embed_tokens.weight";
  if (!config.tie_word_embeddings || !reader.has(kHead)) return;
  const Shape shape{config.vocab_size, config.hidden_size};
  const Tensor head = reader.take(kHead, shape), embedding = reader.take(kEmbedding, shape);
  check<FileError>(head.dtype == embedding.dtype &&
                       std::memcmp(head.data, embedding.data, static_cast<size_t>(head.bytes())) == 0,
                   reader.dir().string(), ": tensor '", kHead, "' differs from '", kEmbedding,
                   "', but config.json says tie_word_embeddings");
}

void load_weights(ExecContext& ctx, io::CheckpointReader& reader, const spec::ModelConfig& config,
                  const Weights& weights) {
  take_tied_head(reader, config);
  for (const HfTensor& t : hf_tensors(weights, config)) {
    const Tensor source = reader.take(t.name, t.file_shape);
    io::copy_convert(t.view, source.view(t.view.shape), ctx.pool);
  }
  reader.finish();
}

Model load_model(ExecContext& ctx, const std::filesystem::path& dir, const spec::ModelConfig& config,
                 DType dtype) {
  io::CheckpointReader reader(dir);
  Model model = allocate_model(config, dtype);
  reader.check(reader.names(), *ctx.pool);
  load_weights(ctx, reader, model.config, model.weights);
  return model;
}

void pack_for_inference(ExecContext& ctx, Model& model) {
  Weights& w = model.weights;
  for (LayerWeights& layer : w.layers)
    for (Tensor* t : {&layer.qkv_proj, &layer.o_proj, &layer.gate_up_proj, &layer.down_proj})
      *t = ops::pack_weight(ctx, *t);
  w.lm_head = ops::pack_weight(ctx, w.lm_head);
  if (model.config.tie_word_embeddings) w.embed_tokens = w.lm_head;
}

std::vector<io::TensorSpec> checkpoint_tensors(const Weights& weights, const spec::ModelConfig& config,
                                               DType dtype) {
  std::vector<io::TensorSpec> specs;
  for (const HfTensor& t : hf_tensors(weights, config)) {
    const bool reduced = t.view.shape.ndim() >= 2 && !t.name.ends_with("mlp.gate.weight");
    specs.push_back({t.name, reduced ? dtype : DType::kF32, t.file_shape});
  }
  return specs;
}

void write_weights(ExecContext& ctx, io::CheckpointWriter& writer, const Weights& weights,
                   const spec::ModelConfig& config) {
  for (const HfTensor& t : hf_tensors(weights, config)) writer.write(t.name, t.view, ctx.pool);
}

}  // namespace moge::model
