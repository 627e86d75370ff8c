#include "ops/group_router.h"

#include "core/match.h"
#include "ops/cpu/group_router.h"

namespace moge::ops {

void group_router_fwd(ExecContext& ctx, const GroupRouterFwd& a) {
  const char* op = "group_router_fwd";
  Dim T("T"), E("E"), K("K");
  match(op, "logits", a.logits, {T, E}, DType::kF32);
  match(op, "probs", a.probs, {T, E}, DType::kF32);
  match(op, "lse", a.lse, {T}, DType::kF32);
  match(op, "topk_ids", a.topk_ids, {T, K}, DType::kI32);
  match(op, "topk_weights", a.topk_weights, {T, K}, DType::kF32);
  if (a.router_scale) match(op, "router_scale", a.router_scale, {E}, DType::kF32);
  const int64_t G = a.num_groups;
  check<ShapeError>(G >= 1 && E % G == 0 && K % G == 0 && K >= G && K / G <= E / G, op, ": ", E.value(),
                    " experts, ", K.value(), " a token do not divide into ", G, " groups");
  dispatch(ctx, group_router_fwd_table(), a);
}

void group_router_bwd(ExecContext& ctx, const GroupRouterBwd& a) {
  const char* op = "group_router_bwd";
  Dim T("T"), E("E"), K("K");
  match(op, "dlogits", a.dlogits, {T, E}, DType::kF32);
  match(op, "probs", a.probs, {T, E}, DType::kF32);
  match(op, "topk_ids", a.topk_ids, {T, K}, DType::kI32);
  match(op, "dtopk_weights", a.dtopk_weights, {T, K}, DType::kF32);
  if (a.dprobs) match(op, "dprobs", a.dprobs, {T, E}, DType::kF32);
  if (a.dlse) match(op, "dlse", a.dlse, {T}, DType::kF32);
  if (a.router_scale) match(op, "router_scale", a.router_scale, {E}, DType::kF32);
  check<ShapeError>(bool(a.router_scale) == bool(a.drouter_scale), op,
                    ": router_scale and drouter_scale come together");
  if (a.drouter_scale) match(op, "drouter_scale", a.drouter_scale, {E}, DType::kF32);
  dispatch(ctx, group_router_bwd_table(), a);
}

OpTable<GroupRouterFwd>& group_router_fwd_table() {
  static OpTable<GroupRouterFwd> table{"group_router_fwd", cpu::group_router_fwd_impls()};
  return table;
}

OpTable<GroupRouterBwd>& group_router_bwd_table() {
  static OpTable<GroupRouterBwd> table{"group_router_bwd", cpu::group_router_bwd_impls()};
  return table;
}

}  // namespace moge::ops
