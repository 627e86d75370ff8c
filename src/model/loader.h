// Models from and to Hugging Face directories.
#pragma once
#include <filesystem>

#include "core/exec_context.h"
#include "io/hf_checkpoint.h"
#include "model/weights.h"

namespace moge::model {

/// A config with its weights and their memory.
struct Model {
  spec::ModelConfig config;
  Arena memory;
  Weights weights;
};

/// Allocates zeroed weights for a config. Throws OutOfMemoryError with the size asked for.
Model allocate_model(const spec::ModelConfig& config, DType dtype);

/// Reads every tensor that `config` asks for from its directory, converting to `dtype`. Throws FileError for
/// missing, extra or misshapen tensors, for those that don't match their checksum (files of other writers
/// have none), and for non-finite ones (a NaN weight would only show as nonsense much later).
Model load_model(ExecContext& ctx, const std::filesystem::path& dir, const spec::ModelConfig& config,
                 DType dtype);
/// A tied model's file may have lm_head.weight too: takes it. FileError unless it repeats the embedding bit
/// for bit.
void take_tied_head(io::CheckpointReader& reader, const spec::ModelConfig& config);
void load_weights(ExecContext& ctx, io::CheckpointReader& reader, const spec::ModelConfig& config,
                  const Weights& weights);

/// Packs what decoding streams (ops::pack_weight) in place. The model can no longer be trained or saved.
void pack_for_inference(ExecContext& ctx, Model& model);

/// The tensors of a checkpoint in `dtype` (norms, biases and the router stay as they are stored), and their
/// contents.
std::vector<io::TensorSpec> checkpoint_tensors(const Weights& weights, const spec::ModelConfig& config,
                                               DType dtype);
void write_weights(ExecContext& ctx, io::CheckpointWriter& writer, const Weights& weights,
                   const spec::ModelConfig& config);

}  // namespace moge::model
