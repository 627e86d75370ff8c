#include "model/aux_loss.h"

#include "ops/balance_loss.h"

namespace moge::model {

void count_experts(ExecContext& ctx, const Activations& acts, const Tensor& segments,
                   const std::vector<Tensor>& counts) {
  for (size_t l = 0; l < counts.size(); ++l)
    ops::expert_counts(ctx, {.counts = counts[l], .topk_ids = acts.layers[l].topk_ids, .segments = segments});
}

}  // namespace moge::model
