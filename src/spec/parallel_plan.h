// How a model is laid over devices. Each part of a layer has its own split of the same devices (arXiv
// 2505.21411, section 4.2, "H2P": attention DP2 x TP4, routed experts EP4 x TP2, shared expert TP8).
#pragma once
#include <cstdint>
#include <string>

#include "spec/model_config.h"

namespace moge::spec {

struct ParallelPlan {
  int64_t pipeline = 1;      ///< stages of consecutive layers
  int64_t attention_dp = 1;  ///< replicas with tokens of their own
  int64_t attention_tp = 1;  ///< heads split over
  int64_t expert_ep = 1;     ///< expert groups split over
  int64_t expert_tp = 1;     ///< each expert's width split over
  int64_t shared_tp = 1;     ///< the shared expert's width, or the dense MLP's, split over
  /// Each all-reduce as reduce-scatter and all-gather, with the norm between them on its share of the tokens.
  /// With attention_dp > 1 it is so anyway.
  bool reduce_scatter = false;
  int64_t pipeline_chunks = 1;   ///< training: v chunks of layers a stage (interleaved 1F1B, "VPP")
  int64_t context_parallel = 1;  ///< training: parts of a sequence, each on devices of its own
  int64_t replicas = 1;          ///< training: copies of all this, which exchange gradients only

  bool scatters() const { return reduce_scatter || attention_dp > 1; }
  int64_t devices_per_stage() const { return context_parallel * attention_dp * attention_tp; }
  int64_t devices() const { return replicas * pipeline * devices_per_stage(); }
  /// "PP1, attention DP2 x TP4, experts EP4 x TP2, shared TP8"; what is only training's where it is not 1.
  std::string str() const;

  bool operator==(const ParallelPlan&) const = default;

  /// "" if every split of this model comes out even; else which degree and which size of the model don't fit.
  std::string problem(const ModelConfig& config) const;
  /// Throws UsageError with that problem.
  void validate(const ModelConfig& config) const;
};

}  // namespace moge::spec
