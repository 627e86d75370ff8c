#include "ops/cuda/attention.h"

#include "ops/cuda/attention_simple.h"
#include "ops/cuda/sm90/mul_attention.h"
#include "ops/cuda/sm90/prefill.h"

namespace moge::ops::cuda {

std::vector<Impl<PagedAttention>> paged_attention_impls() {
  return {{"cuda.mul_attention", DeviceKind::kCuda, mul_attention_refusal, mul_attention,
           mul_attention_workspace},
          prefill,
          paged_attention_simple};
}

}  // namespace moge::ops::cuda
