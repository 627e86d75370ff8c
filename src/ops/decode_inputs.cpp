#include "ops/decode_inputs.h"

#include "core/match.h"
#include "ops/cpu/decode_inputs.h"

namespace moge::ops {

void decode_inputs(ExecContext& ctx, const DecodeInputs& a) {
  const char* op = "decode_inputs";
  Dim B("B"), MP("MP"), V("V");
  match(op, "kv_lens", a.kv_lens, {B}, DType::kI32);
  match(op, "positions", a.positions, {B}, DType::kI32);
  match(op, "slots", a.slots, {B}, DType::kI32);
  if (a.steps) match(op, "steps", a.steps, {B}, DType::kI64);
  if (a.output_counts) {
    match(op, "output_counts", a.output_counts, {B, V}, DType::kI32);
    match(op, "tokens", a.tokens, {B}, DType::kI32);
  }
  match(op, "block_table", a.block_table, {B, MP}, DType::kI32);
  check<ShapeError>(a.page_size > 0, op, ": page_size: expected tokens in a page, got ", a.page_size);
  dispatch(ctx, decode_inputs_table(), a);
}

OpTable<DecodeInputs>& decode_inputs_table() {
  static OpTable<DecodeInputs> table{"decode_inputs", cpu::decode_inputs_impls()};
  return table;
}

}  // namespace moge::ops
