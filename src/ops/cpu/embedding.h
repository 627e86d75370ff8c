// The CPU implementations of ops/embedding.h, fastest first.
#pragma once
#include "ops/embedding.h"

namespace moge::ops::cpu {

std::vector<Impl<EmbeddingFwd>> embedding_fwd_impls();
std::vector<Impl<EmbeddingBwd>> embedding_bwd_impls();

}  // namespace moge::ops::cpu
