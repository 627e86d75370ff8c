#include "ops/permute.h"

#include "core/match.h"
#include "ops/cpu/permute.h"

namespace moge::ops {

void permute_fwd(ExecContext& ctx, const PermuteFwd& a) {
  const char* op = "permute_fwd";
  Dim T("T"), K("K"), slots("K + S");
  match(op, "topk_ids", a.topk_ids, {T, K}, DType::kI32);
  match(op, "topk_weights", a.topk_weights, {T, K}, DType::kF32);
  match(op, "slot_row", a.slot_row, {T, slots}, DType::kI32);
  check<ShapeError>(slots >= K, op, ": slot_row has ", slots.value(), " slots for K = ", K.value());
  Dim R("R = T * (K + S)", T * slots), ends("E + S + 1");
  match(op, "row_token", a.row_token, {R}, DType::kI32);
  match(op, "row_weight", a.row_weight, {R}, DType::kF32);
  match(op, "offsets", a.offsets, {ends}, DType::kI32);
  const int64_t S = slots - K;
  check<ShapeError>(ends >= S + 1 + (K > 0 ? 1 : 0), op, ": offsets ", a.offsets.shape,
                    " leave no room for experts beside ", S, " shared ones");
  narrow(R, "permute_fwd: number of rows");
  dispatch(ctx, permute_fwd_table(), a);
}

void permute_bwd(ExecContext& ctx, const PermuteBwd& a) {
  const char* op = "permute_bwd";
  Dim T("T"), K("K"), slots("K + S");
  match(op, "dtopk_weights", a.dtopk_weights, {T, K}, DType::kF32);
  match(op, "slot_row", a.slot_row, {T, slots}, DType::kI32);
  check<ShapeError>(slots >= K, op, ": slot_row has ", slots.value(), " slots for K = ", K.value());
  Dim R("R = T * (K + S)", T * slots);
  match(op, "drow_weight", a.drow_weight, {R}, DType::kF32);
  dispatch(ctx, permute_bwd_table(), a);
}

OpTable<PermuteFwd>& permute_fwd_table() {
  static OpTable<PermuteFwd> table{"permute_fwd", cpu::permute_fwd_impls()};
  return table;
}

OpTable<PermuteBwd>& permute_bwd_table() {
  static OpTable<PermuteBwd> table{"permute_bwd", cpu::permute_bwd_impls()};
  return table;
}

}  // namespace moge::ops
