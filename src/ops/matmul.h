// Matrix products with weights stored [out, in], dense and grouped: a dense product is a grouped one with one
// group (docs/design.md, decision 4). Bound by compute for many rows, by weight bandwidth for few.
//
// Grouped: rows offsets[g] .. offsets[g+1]-1 belong to group g (an expert). A `row_ids` tensor gathers: row r
// of the product reads row row_ids[r] of its operand, so that routed tokens are never copied.
//
// Precision follows the weight: bf16 weights round the other operand to bf16 (nearest even) unless it is bf16
// already, with the same result, and accumulate in fp32; f32 weights compute in f32 and take f32 only. A
// row's result does not depend on the other rows, on their number or on the thread count: each element is one
// sum over the inner dimension in increasing order.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// c = a @ w^T + bias + add.
struct MatmulNT {
  Tensor c;        // [R, N] f32
  Tensor a;        // [R, K] f32 | bf16, or [T, K] with row_ids
  Tensor w;        // [N, K] or [G, N, K], f32 | bf16, strided or packed
  Tensor bias;     // [N] f32, optional; only without groups
  Tensor add;      // [R, N] f32, optional; may be c itself (accumulates)
  Tensor offsets;  // [G + 1] i32, optional: grouped
  Tensor row_ids;  // [R] i32, optional
};
/// c = a @ w + add: the gradient of MatmulNT's `a` (per row; rows that share a token are summed by
/// combine_fwd).
struct MatmulNN {
  Tensor c;        // [R, K] f32
  Tensor a;        // [R, N] f32 | bf16, or [T, N] with row_ids
  Tensor w;        // [N, K] or [G, N, K], f32 | bf16, strided
  Tensor add;      // [R, K] f32, optional; may be c itself
  Tensor offsets;  // [G + 1] i32, optional
  Tensor row_ids;  // [R] i32, optional
};
/// c += a^T @ b: the gradient of MatmulNT's `w`.
struct MatmulTN {
  Tensor c;                     // [N, K] or [G, N, K] f32
  Tensor a;                     // [R, N] f32 | bf16, or [T, N] with a_row_ids
  Tensor b;                     // [R, K] f32 | bf16, or [T, K] with b_row_ids
  Tensor offsets;               // [G + 1] i32, optional
  Tensor a_row_ids;             // [R] i32, optional
  Tensor b_row_ids;             // [R] i32, optional
  DType compute = DType::kF32;  ///< kBF16: both operands rounded to bf16
};

void matmul_nt(ExecContext& ctx, const MatmulNT& args);
void matmul_nn(ExecContext& ctx, const MatmulNN& args);
void matmul_tn(ExecContext& ctx, const MatmulTN& args);
OpTable<MatmulNT>& matmul_nt_table();
OpTable<MatmulNN>& matmul_nn_table();
OpTable<MatmulTN>& matmul_tn_table();

/// Reorders a contiguous weight [N, K] or [G, N, K] in place into the layout that matmul_nt streams, and
/// returns the view with Layout::kPanels. A weight that cannot be packed (N % 16, K % 2, or a device without
/// a packed form) comes back unchanged. Inference only: the other products take strided weights.
Tensor pack_weight(ExecContext& ctx, const Tensor& w);

/// dbias[n] += sum over rows of dy[r, n], rows in order.
struct BiasBwd {
  Tensor dbias;  // [N] f32
  Tensor dy;     // [R, N] f32
};
void bias_bwd(ExecContext& ctx, const BiasBwd& args);
OpTable<BiasBwd>& bias_bwd_table();

}  // namespace moge::ops
