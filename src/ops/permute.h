// The permutation that sorts (token, slot) pairs by expert, so that each expert's rows are contiguous. The S
// shared experts are experts E..E+S-1 that every token visits with weight 1 (docs/design.md, decision 3). R =
// T * (K + S) always: a token fills exactly K slots, so every buffer is known before the run.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// Rows of one expert keep the order of their tokens.
struct PermuteFwd {
  Tensor offsets;       // [E + S + 1] i32: rows of expert e are offsets[e] .. offsets[e+1]-1
  Tensor row_token;     // [R] i32: the token of a row (matmul's row_ids)
  Tensor row_weight;    // [R] f32: its routing weight; 1 in shared experts
  Tensor slot_row;      // [T, K + S] i32: the row of a token's slot (combine's)
  Tensor topk_ids;      // [T, K] i32; K may be 0 (a dense layer: only "shared" experts)
  Tensor topk_weights;  // [T, K] f32
};
/// dtopk_weights[t, k] = drow_weight[slot_row[t, k]].
struct PermuteBwd {
  Tensor dtopk_weights;  // [T, K] f32
  Tensor drow_weight;    // [R] f32
  Tensor slot_row;       // [T, K + S] i32
};

void permute_fwd(ExecContext& ctx, const PermuteFwd& args);
void permute_bwd(ExecContext& ctx, const PermuteBwd& args);
OpTable<PermuteFwd>& permute_fwd_table();
OpTable<PermuteBwd>& permute_bwd_table();

}  // namespace moge::ops
