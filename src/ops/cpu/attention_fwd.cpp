#include "ops/cpu/attention.h"

namespace moge::ops::cpu {

std::vector<Impl<AttentionFwd>> attention_fwd_impls() {
  return {attention_fwd_ref};
}

std::vector<Impl<AttentionBwd>> attention_bwd_impls() {
  return {attention_bwd_ref};
}

std::vector<Impl<PagedAttention>> paged_attention_impls() {
  return {paged_attention_ref};
}

}  // namespace moge::ops::cpu
