// The CUDA implementations of ops/attention.h, fastest first.
#pragma once
#include "ops/attention.h"

namespace moge::ops::cuda {

std::vector<Impl<PagedAttention>> paged_attention_impls();

}  // namespace moge::ops::cuda
