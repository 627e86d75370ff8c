// Weights made up, for benchmarks and tests: a model of 72 GB in a second, without a file.
#pragma once
#include "model/serving_weights.h"

namespace moge::model {

/// Random weights of initializer_range, made where they will be read; only the first `num_layers` layers (0:
/// all). The same for the same seed.
ServingModel random_serving_model(ExecContext& ctx, spec::ModelConfig config, DType dtype, int64_t num_layers,
                                  uint64_t seed, const LoadProgress& progress = {});

}  // namespace moge::model
