// Paged attention for every dtype and shape: the fallback, and what the fast kernels are compared with.
#pragma once
#include "ops/attention.h"

namespace moge::ops::cuda {

extern const Impl<PagedAttention> paged_attention_simple;

}  // namespace moge::ops::cuda
