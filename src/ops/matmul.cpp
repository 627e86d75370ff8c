#include "ops/matmul.h"

#include "core/match.h"
#include "ops/cpu/matmul.h"

namespace moge::ops {

namespace {

/// offsets: [G + 1] i32 where w (or dw) is [G, ..]; absent where it has no groups.
void match_offsets(const char* op, const Tensor& offsets, Dim& G) {
  Dim ends("G+1", G + 1);
  match(op, "offsets", offsets, {ends}, DType::kI32);
}

/// A [R, D] operand, or [T, D] gathered by row_ids [R]; in bf16 where the product is.
void match_rows(const char* op, const char* name, const Tensor& t, const char* ids_name,
                const Tensor& row_ids, DType compute, Dim& R, Dim& D) {
  Dim T("T");
  if (row_ids) match(op, ids_name, row_ids, {R}, DType::kI32);
  Dim& rows = row_ids ? T : R;
  if (compute == DType::kBF16)
    match(op, name, t, {rows, D}, {DType::kF32, DType::kBF16});
  else
    match(op, name, t, {rows, D}, DType::kF32);
}

}  // namespace

void matmul_nt(ExecContext& ctx, const MatmulNT& a) {
  Dim R("R"), N("N"), K("K"), G("G");
  match("matmul_nt", "c", a.c, {R, N}, DType::kF32);
  match_rows("matmul_nt", "a", a.a, "row_ids", a.row_ids, a.w.dtype, R, K);
  if (a.offsets) {
    match("matmul_nt", "w", a.w, {G, N, K}, {DType::kF32, DType::kBF16});
    match_offsets("matmul_nt", a.offsets, G);
    check<ShapeError>(!a.bias, "matmul_nt: bias: expected none with groups");
  } else {
    match("matmul_nt", "w", a.w, {N, K}, {DType::kF32, DType::kBF16});
  }
  if (a.bias) match("matmul_nt", "bias", a.bias, {N}, DType::kF32);
  if (a.add) match("matmul_nt", "add", a.add, {R, N}, DType::kF32);
  dispatch(ctx, matmul_nt_table(), a);
}

void matmul_nn(ExecContext& ctx, const MatmulNN& a) {
  Dim R("R"), N("N"), K("K"), G("G");
  match("matmul_nn", "c", a.c, {R, K}, DType::kF32);
  match_rows("matmul_nn", "a", a.a, "row_ids", a.row_ids, a.w.dtype, R, N);
  if (a.offsets) {
    match("matmul_nn", "w", a.w, {G, N, K}, {DType::kF32, DType::kBF16});
    match_offsets("matmul_nn", a.offsets, G);
  } else {
    match("matmul_nn", "w", a.w, {N, K}, {DType::kF32, DType::kBF16});
  }
  if (a.add) match("matmul_nn", "add", a.add, {R, K}, DType::kF32);
  dispatch(ctx, matmul_nn_table(), a);
}

void matmul_tn(ExecContext& ctx, const MatmulTN& t) {
  Dim R("R"), N("N"), K("K"), G("G");
  check<ShapeError>(t.compute == DType::kF32 || t.compute == DType::kBF16,
                    "matmul_tn: compute: expected f32 or bf16, got ", name_of(t.compute));
  match_rows("matmul_tn", "a", t.a, "a_row_ids", t.a_row_ids, t.compute, R, N);
  match_rows("matmul_tn", "b", t.b, "b_row_ids", t.b_row_ids, t.compute, R, K);
  if (t.offsets) {
    match("matmul_tn", "c", t.c, {G, N, K}, DType::kF32);
    match_offsets("matmul_tn", t.offsets, G);
  } else {
    match("matmul_tn", "c", t.c, {N, K}, DType::kF32);
  }
  dispatch(ctx, matmul_tn_table(), t);
}

void bias_bwd(ExecContext& ctx, const BiasBwd& a) {
  Dim R("R"), N("N");
  match("bias_bwd", "dy", a.dy, {R, N}, DType::kF32);
  match("bias_bwd", "dbias", a.dbias, {N}, DType::kF32);
  dispatch(ctx, bias_bwd_table(), a);
}

Tensor pack_weight(ExecContext& ctx, const Tensor& w) {
  check<ShapeError>(w.shape.ndim() == 2 || w.shape.ndim() == 3,
                    "pack_weight: expected [N, K] or [G, N, K], got ", w.str());
  return ctx.device.kind == DeviceKind::kCpu ? cpu::pack_weight(ctx, w) : w;
}

OpTable<MatmulNT>& matmul_nt_table() {
  static OpTable<MatmulNT> table{"matmul_nt", cpu::matmul_nt_impls()};
  return table;
}

OpTable<MatmulNN>& matmul_nn_table() {
  static OpTable<MatmulNN> table{"matmul_nn", cpu::matmul_nn_impls()};
  return table;
}

OpTable<MatmulTN>& matmul_tn_table() {
  static OpTable<MatmulTN> table{"matmul_tn", cpu::matmul_tn_impls()};
  return table;
}

OpTable<BiasBwd>& bias_bwd_table() {
  static OpTable<BiasBwd> table{"bias_bwd", cpu::bias_bwd_impls()};
  return table;
}

}  // namespace moge::ops
