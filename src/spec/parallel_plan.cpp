#include "spec/parallel_plan.h"

#include "core/error.h"

namespace moge::spec {
namespace {

constexpr int64_t kMaxDegree = int64_t{1} << 20;
constexpr double kMaxDevices = int64_t{1} << 30;

/// "" if `size` splits evenly.
std::string uneven(const char* degree_name, int64_t degree, const char* size_name, int64_t size) {
  if (size % degree == 0) return "";
  return moge::str("parallel plan: ", size_name, " ", size, " is not divisible by ", degree_name, " ",
                   degree);
}

std::string expert_problem(const ParallelPlan& p, const ModelConfig& c) {
  const int64_t devices = p.devices_per_stage();
  if (!c.is_moe()) {
    if (p.expert_ep != 1 || p.expert_tp != 1)
      return moge::str("parallel plan ", p.str(), ": a dense model has no experts");
    return uneven("shared_tp", p.shared_tp, "intermediate_size", c.intermediate_size);
  }
  if (p.expert_ep * p.expert_tp != devices)
    return moge::str("parallel plan ", p.str(), ": the experts are split over ", p.expert_ep * p.expert_tp,
                     " devices, attention over ", devices);
  std::string problem =
      uneven("shared_tp", p.shared_tp, "shared_expert_intermediate_size", c.shared_expert_intermediate_size);
  if (problem.empty())
    problem = uneven("expert_tp", p.expert_tp, "moe_intermediate_size", c.moe_intermediate_size);
  if (problem.empty()) problem = uneven("expert_ep", p.expert_ep, "num_experts", c.num_experts);
  // Ranks that hold whole groups get equally many rows of every batch; one group over several ranks does not.
  if (problem.empty() && c.num_expert_groups > 1)
    problem = uneven("expert_ep", p.expert_ep, "num_expert_groups", c.num_expert_groups);
  return problem;
}

}  // namespace

std::string ParallelPlan::problem(const ModelConfig& c) const {
  double product = 1;
  for (const int64_t degree : {pipeline, attention_dp, attention_tp, expert_ep, expert_tp, shared_tp,
                               pipeline_chunks, context_parallel, replicas})
    if (degree < 1 || degree > kMaxDegree)
      return moge::str("parallel plan ", str(), ": expected degrees from 1 to ", kMaxDegree);
  for (const int64_t degree : {pipeline, attention_dp, attention_tp, context_parallel, replicas})
    product *= static_cast<double>(degree);
  if (product > kMaxDevices)
    return moge::str("parallel plan ", str(), ": more than ", kMaxDevices, " devices");
  if (pipeline > c.num_hidden_layers)
    return moge::str("parallel plan: ", pipeline, " pipeline stages for ", c.num_hidden_layers, " layers");
  std::string problem = uneven("attention_tp", attention_tp, "num_attention_heads", c.num_attention_heads);
  // Fewer KV heads than ranks: each head is kept by several.
  if (problem.empty())
    problem = attention_tp > c.num_key_value_heads
                  ? uneven("num_key_value_heads", c.num_key_value_heads, "attention_tp", attention_tp)
                  : uneven("attention_tp", attention_tp, "num_key_value_heads", c.num_key_value_heads);
  if (problem.empty()) problem = uneven("shared_tp", shared_tp, "devices per stage", devices_per_stage());
  return problem.empty() ? expert_problem(*this, c) : problem;
}

void ParallelPlan::validate(const ModelConfig& config) const {
  const std::string found = problem(config);
  check<UsageError>(found.empty(), found);
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
