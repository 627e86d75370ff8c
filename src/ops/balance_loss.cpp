#include "ops/balance_loss.h"

#include "core/match.h"
#include "ops/cpu/balance_loss.h"

namespace moge::ops {

namespace {

/// segments is [S + 1] where S is known.
void match_segments(const char* op, const Tensor& segments, int64_t S) {
  Dim ends("S + 1", S + 1);
  match(op, "segments", segments, {ends}, DType::kI32);
}

}  // namespace

void expert_counts(ExecContext& ctx, const ExpertCounts& a) {
  Dim T("T"), K("K"), S("S"), E("E");
  match("expert_counts", "counts", a.counts, {S, E}, DType::kI32);
  match("expert_counts", "topk_ids", a.topk_ids, {T, K}, DType::kI32);
  match_segments("expert_counts", a.segments, S);
  dispatch(ctx, expert_counts_table(), a);
}

void balance_loss(ExecContext& ctx, const BalanceLoss& a) {
  const char* op = "balance_loss";
  Dim one("1", 1), T("T"), S("S"), E("E");
  match(op, "loss", a.loss, {one}, DType::kF32);
  match(op, "probs", a.probs, {T, E}, DType::kF32);
  if (a.dprobs) match(op, "dprobs", a.dprobs, {T, E}, DType::kF32);
  match(op, "counts", a.counts, {S, E}, DType::kI32);
  match(op, "segment_tokens", a.segment_tokens, {S}, DType::kI32);
  match_segments(op, a.segments, S);
  check<ShapeError>(a.topk >= 1, op, ": expected topk >= 1, got ", a.topk);
  dispatch(ctx, balance_loss_table(), a);
}

void z_loss(ExecContext& ctx, const ZLoss& a) {
  Dim one("1", 1), T("T");
  match("z_loss", "loss", a.loss, {one}, DType::kF32);
  match("z_loss", "lse", a.lse, {T}, DType::kF32);
  if (a.dlse) match("z_loss", "dlse", a.dlse, {T}, DType::kF32);
  dispatch(ctx, z_loss_table(), a);
}

OpTable<ExpertCounts>& expert_counts_table() {
  static OpTable<ExpertCounts> table{"expert_counts", cpu::expert_counts_impls()};
  return table;
}

OpTable<BalanceLoss>& balance_loss_table() {
  static OpTable<BalanceLoss> table{"balance_loss", cpu::balance_loss_impls()};
  return table;
}

OpTable<ZLoss>& z_loss_table() {
  static OpTable<ZLoss> table{"z_loss", cpu::z_loss_impls()};
  return table;
}

}  // namespace moge::ops
