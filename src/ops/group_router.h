// The MoGE router (arXiv 2505.21411, eq. 5-6): softmax over all E experts in fp32, then the K' = K/G largest
// scores inside each of G contiguous groups. G = 1 is the plain global top-K of other models. Bound by
// latency.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// Selected experts stand group by group, by falling score inside a group; ties go to the lowest index.
/// weight = score * router_scale[expert] (the scale never changes the selection); with `renormalize` the K
/// kept scores are first divided by their sum (Qwen3-MoE's norm_topk_prob).
struct GroupRouterFwd {
  Tensor topk_ids;      // [T, K] i32, 0..E-1
  Tensor topk_weights;  // [T, K] f32
  Tensor probs;         // [T, E] f32: the softmax over all experts
  Tensor lse;           // [T] f32: log sum exp of the logits (z-loss)
  Tensor logits;        // [T, E] f32
  Tensor router_scale;  // [E] f32, optional
  int num_groups = 1;   // G divides E and K; K/G <= E/G
  bool renormalize = false;
};
struct GroupRouterBwd {
  Tensor dlogits;        // [T, E] f32 (=)
  Tensor drouter_scale;  // [E] f32 (+=), present when router_scale is
  Tensor dtopk_weights;  // [T, K] f32
  Tensor dprobs;         // [T, E] f32, optional: a gradient of the scores themselves (balance loss)
  Tensor dlse;           // [T] f32, optional (z-loss)
  Tensor topk_ids;       // [T, K] i32
  Tensor probs;          // [T, E] f32
  Tensor router_scale;   // [E] f32, optional
  bool renormalize = false;
};

void group_router_fwd(ExecContext& ctx, const GroupRouterFwd& args);
void group_router_bwd(ExecContext& ctx, const GroupRouterBwd& args);
OpTable<GroupRouterFwd>& group_router_fwd_table();
OpTable<GroupRouterBwd>& group_router_bwd_table();

}  // namespace moge::ops
