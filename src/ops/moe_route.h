// The whole router of a serving step: scores, selection and permutation (group_router.h and permute.h in one
// op, with the product in front), so that no step of it waits for the host. Bound by latency.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// logits = x @ gate^T in fp32, then GroupRouterFwd's selection, then PermuteFwd's order; S = slots - K
/// shared experts behind the E routed ones. The order of everything is fixed: the same bits in every batch.
struct MoeRoute {
  Tensor topk_ids;      // [T, K] i32
  Tensor topk_weights;  // [T, K] f32
  Tensor offsets;       // [E + S + 1] i32
  Tensor row_token;     // [R] i32, R = T (K + S)
  Tensor row_weight;    // [R] f32
  Tensor slot_row;      // [T, K + S] i32
  Tensor x;             // [T, D] bf16
  Tensor gate;          // [E, D] f32 | bf16; on the CPU also packed (pack_weight)
  Tensor router_scale;  // [E] f32, optional
  int num_groups = 1;
  bool renormalize = false;
};

void moe_route(ExecContext& ctx, const MoeRoute& args);
OpTable<MoeRoute>& moe_route_table();

}  // namespace moge::ops
