#include "ops/moe_route.h"

#include "core/match.h"
#include "ops/cpu/moe_route.h"

namespace moge::ops {

void moe_route(ExecContext& ctx, const MoeRoute& a) {
  const char* op = "moe_route";
  Dim T("T"), D("D"), E("E"), K("K"), slots("K + S");
  match(op, "x", a.x, {T, D}, DType::kBF16);
  match(op, "gate", a.gate, {E, D}, {DType::kF32, DType::kBF16});
  if (a.router_scale) match(op, "router_scale", a.router_scale, {E}, DType::kF32);
  match(op, "topk_ids", a.topk_ids, {T, K}, DType::kI32);
  match(op, "topk_weights", a.topk_weights, {T, K}, DType::kF32);
  match(op, "slot_row", a.slot_row, {T, slots}, DType::kI32);
  const int64_t G = a.num_groups;
  check<ShapeError>(G >= 1 && E % G == 0 && K % G == 0 && K >= G && K / G <= E / G, op, ": ", E.value(),
                    " experts, ", K.value(), " a token do not divide into ", G, " groups");
  check<ShapeError>(slots >= K, op, ": slot_row has ", slots.value(), " slots for K = ", K.value());
  Dim R("R = T * (K + S)", T * slots), ends("E + S + 1", E + slots - K + 1);
  match(op, "offsets", a.offsets, {ends}, DType::kI32);
  match(op, "row_token", a.row_token, {R}, DType::kI32);
  match(op, "row_weight", a.row_weight, {R}, DType::kF32);
  narrow(R, "moe_route: number of rows");
  dispatch(ctx, moe_route_table(), a);
}

OpTable<MoeRoute>& moe_route_table() {
  static OpTable<MoeRoute> table{"moe_route", cpu::moe_route_impls()};
  return table;
}

}  // namespace moge::ops
