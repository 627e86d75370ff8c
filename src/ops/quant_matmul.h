// Serving's product: eight-bit (or bf16) weights and activations, per-row activation scales times per-channel
// weight scales, dense or grouped over experts ("SwiftGMM", arXiv 2505.21411, section 4.2). Bound by the
// bytes of the weights while rows are few, by the matrix units when they are many.
//
// i8 accumulates in i32 and is exact; fp8_e4m3 and bf16 accumulate in fp32. A row's result does not depend on
// the other rows nor on their number.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// With p[r, n] = sum_k a[r, k] w[n, k]:
///   v[r, n] = p[r, n] * w_scale[n] * a_scale[r] + bias[n]      (in fp32, in this order)
///   c[r, n] = v[r, n] * row_weight[r], or, with silu_mul,
///   c[r, f] = silu(v of gate f) * (v of up f) * row_weight[r]
/// Grouped: rows offsets[g] .. offsets[g+1]-1 of c belong to group g; with row_ids row r of c reads row
/// row_ids[r] of a (and of a_scale).
struct QuantMatmul {
  Tensor c;               // [R, N] bf16 | f32; with silu_mul [R, N / 2] bf16
  Tensor a;               // [R, K], or [T, K] with row_ids; i8 | fp8_e4m3 | bf16
  Tensor a_scale;         // [R] or [T] f32; absent for bf16
  Tensor w;               // [N, K] or [G, N, K], contiguous, the dtype of a; i8 also packed
  Tensor w_scale;         // [N] or [G, N] f32; absent for bf16
  Tensor bias;            // [N] f32, optional; only without groups
  Tensor offsets;         // [G + 1] i32, optional: grouped
  Tensor row_ids;         // [R] i32, optional
  Tensor row_weight;      // [R] f32, optional
  bool silu_mul = false;  ///< w's rows come as kGateUpBlock rows of gate, the same of up, and so on
  /// Neither reads what the op right before it writes nor overwrites what that touches, so that this one may
  /// begin where that one's last tiles leave multiprocessors free. What follows finds both ended. The op
  /// before is a quant_matmul with rows for which this is false.
  bool beside_previous = false;
};

/// Gate and up rows alternate in blocks of eight, so that one thread of the tensor core holds both values of
/// a feature (an m64 accumulator has rows i and i + 8 in one thread). N is a multiple of 16.
inline constexpr int64_t kGateUpBlock = 8;
/// Row of the interleaved [2F] order that holds row i of gate (up = false) or of up.
constexpr int64_t gate_up_row(int64_t i, bool up) {
  return (i / kGateUpBlock * 2 + (up ? 1 : 0)) * kGateUpBlock + i % kGateUpBlock;
}

void quant_matmul(ExecContext& ctx, const QuantMatmul& args);

/// Reorders a contiguous i8 weight [N, K] or [G, N, K] in place into the layout that the CPU multiplies by
/// fastest, and returns the view with Layout::kPanels: the same bits come out of it. A weight that cannot be
/// packed (another dtype, N % 16, K % 4, a device or CPU without a packed form, or MOGE_IMPL without one)
/// comes back unchanged.
Tensor pack_quant_weight(ExecContext& ctx, const Tensor& w);
OpTable<QuantMatmul>& quant_matmul_table();

}  // namespace moge::ops
