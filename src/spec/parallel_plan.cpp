#include "spec/parallel_plan.h"

#include "core/error.h"

namespace moge::spec {
namespace {

constexpr int64_t kMaxDegree = int64_t{1} << 20;

void divides(const char* degree_name, int64_t degree, const char* size_name, int64_t size) {
  check<UsageError>(size % degree == 0, "parallel plan: ", size_name, " ", size, " is not divisible by ",
                    degree_name, " ", degree);
}

}  // namespace

void ParallelPlan::validate(const ModelConfig& c) const {
  for (const int64_t degree : {pipeline, attention_dp, attention_tp, expert_ep, expert_tp, shared_tp,
                               pipeline_chunks, context_parallel, replicas})
    check<UsageError>(degree >= 1 && degree <= kMaxDegree, "parallel plan ", str(),
                      ": expected degrees from 1 to ", kMaxDegree);
  check<UsageError>(pipeline <= c.num_hidden_layers, "parallel plan: ", pipeline, " pipeline stages for ",
                    c.num_hidden_layers, " layers");
  divides("attention_tp", attention_tp, "num_attention_heads", c.num_attention_heads);
  // Fewer KV heads than ranks: each head is kept by several.
  if (attention_tp > c.num_key_value_heads) {
    divides("num_key_value_heads", c.num_key_value_heads, "attention_tp", attention_tp);
  } else {
    divides("attention_tp", attention_tp, "num_key_value_heads", c.num_key_value_heads);
  }
  divides("shared_tp", shared_tp, "devices per stage", devices_per_stage());
  if (!c.is_moe()) {
    check<UsageError>(expert_ep == 1 && expert_tp == 1, "parallel plan ", str(),
                      ": a dense model has no experts");
    divides("shared_tp", shared_tp, "intermediate_size", c.intermediate_size);
    return;
  }
  check<UsageError>(expert_ep * expert_tp == devices_per_stage(), "parallel plan ", str(),
                    ": the experts are split over ", expert_ep * expert_tp, " devices, attention over ",
                    devices_per_stage());
  divides("shared_tp", shared_tp, "shared_expert_intermediate_size", c.shared_expert_intermediate_size);
  divides("expert_tp", expert_tp, "moe_intermediate_size", c.moe_intermediate_size);
  divides("expert_ep", expert_ep, "num_experts", c.num_experts);
  // Ranks that hold whole groups get equally many rows of every batch; one group over several ranks does not.
  if (c.num_expert_groups > 1) divides("expert_ep", expert_ep, "num_expert_groups", c.num_expert_groups);
}

std::string ParallelPlan::str() const {
  return moge::str("PP", pipeline, ", attention DP", attention_dp, " x TP", attention_tp, ", experts EP",
                   expert_ep, " x TP", expert_tp, ", shared TP", shared_tp,
                   pipeline_chunks > 1 ? moge::str(", VPP", pipeline_chunks) : "",
                   context_parallel > 1 ? moge::str(", CP", context_parallel) : "",
                   replicas > 1 ? moge::str(", DP", replicas) : "",
                   reduce_scatter ? ", reduce-scatter + all-gather" : "");
}

}  // namespace moge::spec
