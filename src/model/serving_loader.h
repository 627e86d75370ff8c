// A checkpoint into the weights that serving streams.
#pragma once
#include <filesystem>

#include "model/serving_weights.h"

namespace moge::model {

/// Reads a Hugging Face directory layer by layer, copies it to ctx.backend's device and quantises there, or
/// on the CPU without one. Host memory: one layer and two of its tensors. Throws FileError as load_model
/// does, OutOfMemoryError.
ServingModel load_serving_model(ExecContext& ctx, const std::filesystem::path& dir,
                                const spec::ModelConfig& config, DType dtype, const LoadProgress& progress);

}  // namespace moge::model
