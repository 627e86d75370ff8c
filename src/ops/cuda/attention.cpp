#include "ops/cuda/attention.h"

#include "ops/cuda/attention_simple.h"
#include "ops/cuda/sm90/mul_attention.h"
#include "ops/cuda/sm90/prefill.h"

namespace moge::ops::cuda {

namespace {

void decode(ExecContext& ctx, const PagedAttention& args, std::span<std::byte> workspace) {
  mul_attention(ctx, args, workspace);
}

}  // namespace

std::vector<Impl<PagedAttention>> paged_attention_impls() {
  return {{"cuda.mul_attention", DeviceKind::kCuda, mul_attention_refusal, decode, mul_attention_workspace},
          prefill,
          paged_attention_simple};
}

}  // namespace moge::ops::cuda
