#include "sim/op_time.h"

namespace moge::sim {

const char* name_of(Op op) {
  static constexpr const char* kNames[kNumOps] = {"embedding",
                                                  "attention_norm",
                                                  "attention_all_gather",
                                                  "qkv",
                                                  "rope",
                                                  "kv_write",
                                                  "rope_kv_write",
                                                  "attention",
                                                  "prefill_attention",
                                                  "attention_quant",
                                                  "o_proj",
                                                  "attention_reduce",
                                                  "token_layer",
                                                  "mlp_norm",
                                                  "mlp_all_gather",
                                                  "gate_up",
                                                  "swiglu",
                                                  "down",
                                                  "router",
                                                  "softmax",
                                                  "group_topk",
                                                  "router_scale",
                                                  "sort_experts",
                                                  "permute",
                                                  "moe_layer",
                                                  "moe_route",
                                                  "expert_gate_up",
                                                  "expert_swiglu",
                                                  "expert_quant",
                                                  "expert_down",
                                                  "combine",
                                                  "shared_gate_up",
                                                  "shared_swiglu",
                                                  "shared_down",
                                                  "mlp_reduce",
                                                  "pipeline_send",
                                                  "final_norm",
                                                  "lm_head",
                                                  "logits_gather",
                                                  "sampling",
                                                  "draft",
                                                  "step"};
  return kNames[static_cast<int>(op)];
}

const char* name_of(Bound bound) {
  switch (bound) {
    case Bound::kCompute:
      return "compute";
    case Bound::kMemory:
      return "memory";
    case Bound::kVector:
      return "vector";
    case Bound::kNetwork:
      return "network";
    case Bound::kOverhead:
      return "overhead";
  }
  return "?";
}

const char* name_of(Basis basis) {
  switch (basis) {
    case Basis::kFormula:
      return "formula";
    case Basis::kInterpolated:
      return "interpolated";
    case Basis::kMeasured:
      return "measured";
  }
  return "?";
}

}  // namespace moge::sim
