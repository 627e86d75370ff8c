// Kernels of group_router.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

/// Some consecutive tokens of GroupRouterFwd.
struct RouterTokens {
  int32_t* topk_ids;                                                // [tokens, K]
  float* topk_weights;                                              // [tokens, K]
  float* probs;                                                     // [tokens, E]
  float* lse;                                                       // [tokens]
  const float* logits;                                              // [tokens, E]
  const float* router_scale;                                        // [E] or null
  int64_t ids_stride, weights_stride, probs_stride, logits_stride;  ///< of rows, in elements
  int64_t tokens, E, K, G;
  bool renormalize;
};

struct GroupRouterKernels {
  /// scratch: router_scratch_bytes(E, K, G), 64-byte aligned.
  void (*fwd)(const RouterTokens& args, void* scratch);
  /// dlogits[E] = probs * (dprobs + dlse - dot(dprobs, probs) - dot_rest): softmax's backward for one token.
  /// dprobs may be null (zeros).
  void (*softmax_bwd)(float* dlogits, const float* dprobs, const float* probs, float dlse, float dot_rest,
                      int64_t E);
};
namespace avx2 {
extern const GroupRouterKernels group_router;
}
namespace avx512 {
extern const GroupRouterKernels group_router;
}

/// [E] probabilities, [K] experts and [K / G] sort keys for each of up to 16 lanes.
constexpr int64_t router_scratch_bytes(int64_t E, int64_t K, int64_t G) {
  return (E + K + K / G) * 16 * 4;
}

}  // namespace moge::ops::cpu::vec
