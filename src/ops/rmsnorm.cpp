#include "ops/rmsnorm.h"

#include "core/match.h"
#include "ops/cpu/rmsnorm.h"

namespace moge::ops {

namespace {

/// x is [T, D] or [T, H, D], rstd the same without D.
void match_rows(const char* op, std::initializer_list<std::pair<const char*, const Tensor*>> rows,
                const Tensor& rstd, const Tensor& weight) {
  Dim T("T"), H("H"), D("D");
  const bool heads = rows.begin()->second->shape.ndim() == 3;
  for (const auto& [name, t] : rows) {
    if (!*t) continue;
    if (heads)
      match(op, name, *t, {T, H, D}, DType::kF32);
    else
      match(op, name, *t, {T, D}, DType::kF32);
  }
  if (rstd && heads) match(op, "rstd", rstd, {T, H}, DType::kF32);
  if (rstd && !heads) match(op, "rstd", rstd, {T}, DType::kF32);
  match(op, "weight", weight, {D}, DType::kF32);
}

}  // namespace

void rmsnorm_fwd(ExecContext& ctx, const RmsnormFwd& a) {
  match_rows("rmsnorm_fwd", {{"x", &a.x}, {"y", &a.y}}, a.rstd, a.weight);
  dispatch(ctx, rmsnorm_fwd_table(), a);
}

void rmsnorm_bwd(ExecContext& ctx, const RmsnormBwd& a) {
  match_rows("rmsnorm_bwd", {{"x", &a.x}, {"dx", &a.dx}, {"dy", &a.dy}, {"add", &a.add}}, a.rstd, a.weight);
  check<ShapeError>(bool(a.rstd), "rmsnorm_bwd: rstd is required");
  dispatch(ctx, rmsnorm_bwd_table(), a);
}

OpTable<RmsnormFwd>& rmsnorm_fwd_table() {
  static OpTable<RmsnormFwd> table{"rmsnorm_fwd", cpu::rmsnorm_fwd_impls()};
  return table;
}

OpTable<RmsnormBwd>& rmsnorm_bwd_table() {
  static OpTable<RmsnormBwd> table{"rmsnorm_bwd", cpu::rmsnorm_bwd_impls()};
  return table;
}

}  // namespace moge::ops
