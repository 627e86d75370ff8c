#include "ops/quant_matmul.h"

#include "core/match.h"
#include "ops/cpu/quant_matmul.h"
#include "ops/cpu/quant_panels.h"

namespace moge::ops {

void quant_matmul(ExecContext& ctx, const QuantMatmul& a) {
  const char* op = "quant_matmul";
  Dim R("R"), N("N"), K("K"), G("G"), T("T");
  const DType dtype = a.a.dtype;
  match(op, "a", a.a, {a.row_ids ? T : R, K}, {DType::kI8, DType::kFP8E4M3, DType::kBF16});
  if (a.row_ids) match(op, "row_ids", a.row_ids, {R}, DType::kI32);
  if (a.offsets) {
    match(op, "w", a.w, {G, N, K}, dtype);
    Dim ends("G + 1", G + 1);
    match(op, "offsets", a.offsets, {ends}, DType::kI32);
    check<ShapeError>(!a.bias, op, ": bias: expected none with groups");
  } else {
    match(op, "w", a.w, {N, K}, dtype);
  }
  const bool packed = a.w.layout == Layout::kPanels;
  check<ShapeError>(packed || a.w.is_contiguous(), op, ": w: expected a contiguous tensor, got ", a.w.str());
  check<ShapeError>(!packed || (dtype == DType::kI8 && ctx.device.kind == DeviceKind::kCpu), op,
                    ": w: only i8 on the CPU may be packed, got ", a.w.str());
  const bool scaled = dtype != DType::kBF16;
  check<ShapeError>(bool(a.a_scale) == scaled && bool(a.w_scale) == scaled, op,
                    ": expected a_scale and w_scale with eight-bit operands only");
  if (scaled) {
    match(op, "a_scale", a.a_scale, {a.row_ids ? T : R}, DType::kF32);
    if (a.offsets)
      match(op, "w_scale", a.w_scale, {G, N}, DType::kF32);
    else
      match(op, "w_scale", a.w_scale, {N}, DType::kF32);
  }
  if (a.bias) match(op, "bias", a.bias, {N}, DType::kF32);
  if (a.row_weight) match(op, "row_weight", a.row_weight, {R}, DType::kF32);
  if (a.silu_mul) {
    check<ShapeError>(N % (2 * kGateUpBlock) == 0, op, ": expected N to be a multiple of ", 2 * kGateUpBlock,
                      " (gate and up in blocks), got ", N.value());
    Dim F("N / 2", N / 2);
    match(op, "c", a.c, {R, F}, DType::kBF16);
  } else {
    match(op, "c", a.c, {R, N}, {DType::kBF16, DType::kF32});
  }
  dispatch(ctx, quant_matmul_table(), a);
}

Tensor pack_quant_weight(ExecContext& ctx, const Tensor& w) {
  check<ShapeError>(w.shape.ndim() == 2 || w.shape.ndim() == 3,
                    "pack_quant_weight: expected [N, K] or [G, N, K], got ", w.str());
  return ctx.device.kind == DeviceKind::kCpu ? cpu::pack_quant_weight(ctx, w) : w;
}

OpTable<QuantMatmul>& quant_matmul_table() {
  static OpTable<QuantMatmul> table{"quant_matmul", cpu::quant_matmul_impls()};
  return table;
}

}  // namespace moge::ops
