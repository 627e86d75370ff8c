#include "ops/sampling.h"

#include "core/match.h"
#include "ops/cpu/sampling.h"

namespace moge::ops {

void sampling(ExecContext& ctx, const Sampling& a) {
  const char* op = "sampling";
  Dim B("B"), V("V");
  match(op, "logits", a.logits, {B, V}, DType::kF32);
  match(op, "tokens", a.tokens, {B}, DType::kI32);
  if (a.logprobs) match(op, "logprobs", a.logprobs, {B}, DType::kF32);
  match(op, "temperature", a.temperature, {B}, DType::kF32);
  match(op, "top_k", a.top_k, {B}, DType::kI32);
  match(op, "top_p", a.top_p, {B}, DType::kF32);
  match(op, "min_p", a.min_p, {B}, DType::kF32);
  match(op, "repetition_penalty", a.repetition_penalty, {B}, DType::kF32);
  match(op, "presence_penalty", a.presence_penalty, {B}, DType::kF32);
  match(op, "frequency_penalty", a.frequency_penalty, {B}, DType::kF32);
  if (a.output_counts) match(op, "output_counts", a.output_counts, {B, V}, DType::kI32);
  if (a.prompt_mask) match(op, "prompt_mask", a.prompt_mask, {B, V}, DType::kU8);
  match(op, "seeds", a.seeds, {B}, DType::kI64);
  match(op, "steps", a.steps, {B}, DType::kI64);
  check<ShapeError>(V > 0, op, ": logits: expected at least one token, got V=0");
  dispatch(ctx, sampling_table(), a);
}

OpTable<Sampling>& sampling_table() {
  static OpTable<Sampling> table{"sampling", cpu::sampling_impls()};
  return table;
}

}  // namespace moge::ops
