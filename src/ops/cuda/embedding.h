// ops/embedding.h on the GPU.
#pragma once
#include <vector>

#include "ops/embedding.h"

namespace moge::ops::cuda {

std::vector<Impl<EmbeddingFwd>> embedding_fwd_impls();

}  // namespace moge::ops::cuda
