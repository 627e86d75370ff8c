// Auxiliary losses of the router. Balance (arXiv 2505.21411, eq. 8): alpha * sum_i f_i p_i with f_i = E/(K n)
// * count_i and p_i the mean global-softmax score of expert i, over n tokens; uniform routing gives alpha
// * 1.0. The counts are given, not taken from these rows: they may span several micro-batches or ranks, which
// makes the gradient independent of how the batch was cut. z-loss (Zoph et al., arXiv 2202.08906): coef *
// mean lse^2.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// counts[s, i] += #{t in segment s, k: topk_ids[t, k] = i}.
struct ExpertCounts {
  Tensor counts;    // [S, E] i32
  Tensor topk_ids;  // [T, K] i32
  Tensor segments;  // [S + 1] i32: rows segments[s] .. segments[s+1]-1
};
/// Segments are the whole batch (S = 1: batch level, global batch) or its sequences (sequence level).
struct BalanceLoss {
  Tensor loss;            // [1] f32 (=): this call's share of weight * sum over segments of sum_i f_i p_i
  Tensor dprobs;          // [T, E] f32 (=), optional
  Tensor probs;           // [T, E] f32
  Tensor counts;          // [S, E] i32: selections in the whole segment
  Tensor segment_tokens;  // [S] i32: tokens n of the whole segment (those of other calls included)
  Tensor segments;        // [S + 1] i32: its rows here
  int topk = 1;           ///< K
  float weight = 1;       ///< alpha; sequence level: alpha / number of sequences
};
/// loss = weight * sum_t lse[t]^2 (weight = coef / tokens of the batch).
struct ZLoss {
  Tensor loss;  // [1] f32 (=)
  Tensor dlse;  // [T] f32 (=), optional
  Tensor lse;   // [T] f32
  float weight = 0;
};

void expert_counts(ExecContext& ctx, const ExpertCounts& args);
void balance_loss(ExecContext& ctx, const BalanceLoss& args);
void z_loss(ExecContext& ctx, const ZLoss& args);
OpTable<ExpertCounts>& expert_counts_table();
OpTable<BalanceLoss>& balance_loss_table();
OpTable<ZLoss>& z_loss_table();

}  // namespace moge::ops
