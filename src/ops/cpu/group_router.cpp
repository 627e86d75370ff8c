#include "ops/cpu/group_router.h"

#include <cmath>
#include <limits>

#include "core/buffer.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/group_router.h"

namespace moge::ops::cpu {

namespace {

/// Experts are compared by their logits: the order of the scores, without the ties that exp's rounding makes,
/// so every implementation selects alike. NaN stands below every number.
bool above(float a, float b) {
  return a > b || (std::isnan(b) && !std::isnan(a));
}

void select_ref(int32_t* ids, const float* logits, int64_t E, int64_t K, int64_t G) {
  for (int64_t g = 0; g < G; ++g) {
    for (int64_t k = g * (K / G); k < (g + 1) * (K / G); ++k) {
      int64_t best = -1;
      for (int64_t e = g * (E / G); e < (g + 1) * (E / G); ++e) {
        bool taken = false;
        for (int64_t j = g * (K / G); j < k; ++j) taken = taken || ids[j] == e;
        if (!taken && (best < 0 || above(logits[e], logits[best]))) best = e;
      }
      ids[k] = static_cast<int32_t>(best);
    }
  }
}

void fwd_ref(const vec::RouterTokens& a, void*) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    const float* logits = a.logits + t * a.logits_stride;
    float* probs = a.probs + t * a.probs_stride;
    int32_t* ids = a.topk_ids + t * a.ids_stride;
    float* weights = a.topk_weights + t * a.weights_stride;
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t e = 0; e < a.E; ++e) top = std::max(top, logits[e]);
    double sum = 0;
    for (int64_t e = 0; e < a.E; ++e) sum += std::exp(double{logits[e]} - top);
    for (int64_t e = 0; e < a.E; ++e) probs[e] = static_cast<float>(std::exp(double{logits[e]} - top) / sum);
    a.lse[t] = static_cast<float>(top + std::log(sum));
    select_ref(ids, logits, a.E, a.K, a.G);
    float kept = 0;
    for (int64_t k = 0; k < a.K; ++k) kept += probs[ids[k]];
    for (int64_t k = 0; k < a.K; ++k)
      weights[k] = probs[ids[k]] / (a.renormalize ? kept : 1) * (a.router_scale ? a.router_scale[ids[k]] : 1);
  }
}

void softmax_bwd_ref(float* dlogits, const float* dprobs, const float* probs, float dlse, float dot_rest,
                     int64_t E) {
  double dot = dot_rest;
  for (int64_t e = 0; e < E; ++e) dot += dprobs ? double{dprobs[e]} * probs[e] : 0;
  for (int64_t e = 0; e < E; ++e)
    dlogits[e] = probs[e] * ((dprobs ? dprobs[e] : 0) + dlse - static_cast<float>(dot));
}

const vec::GroupRouterKernels kRef{fwd_ref, softmax_bwd_ref};

/// Whole vectors of tokens, whatever the lanes.
int64_t tokens_per_task(int64_t E) {
  return ceil_div(rows_per_task(4 * E), 16) * 16;
}

int64_t scratch_per_thread(const GroupRouterFwd& a) {
  return align_up(vec::router_scratch_bytes(a.logits.dim(1), a.topk_ids.dim(1), a.num_groups));
}

template <const vec::GroupRouterKernels& kernels>
void fwd(ExecContext& ctx, const GroupRouterFwd& a, std::span<std::byte> ws) {
  const int64_t T = a.logits.dim(0);
  const int64_t E = a.logits.dim(1);
  const Rows<int32_t> ids(a.topk_ids);
  const Rows<float> weights(a.topk_weights), probs(a.probs), lse(a.lse), logits(a.logits);
  const Rows<float> router_scale(a.router_scale);
  const int64_t grain = tokens_per_task(E);
  ctx.pool->run(ceil_div(T, grain), [&](int64_t task, int thread) {
    const int64_t t = task * grain;
    kernels.fwd({.topk_ids = ids[t],
                 .topk_weights = weights[t],
                 .probs = probs[t],
                 .lse = lse[t],
                 .logits = logits[t],
                 .router_scale = router_scale[0],
                 .ids_stride = ids.stride(),
                 .weights_stride = weights.stride(),
                 .probs_stride = probs.stride(),
                 .logits_stride = logits.stride(),
                 .tokens = std::min(grain, T - t),
                 .E = E,
                 .K = a.topk_ids.dim(1),
                 .G = a.num_groups,
                 .renormalize = a.renormalize},
                ws.data() + thread * scratch_per_thread(a));
  });
}

int64_t fwd_workspace(const ExecContext& ctx, const GroupRouterFwd& a) {
  return ctx.pool->num_threads() * scratch_per_thread(a);
}

/// Per token, with the K kept scores p_k, d_k = dweight_k * scale_k and P = sum p_k (1 unless renormalised):
///   score gradient dp_k = d_k, or (d_k - sum_j d_j p_j / P) / P
///   dscale_k += dweight_k * p_k / P
///   dlogits = p * (dp - sum_e dp_e p_e + dlse), where dp also holds dprobs.
template <const vec::GroupRouterKernels& kernels>
void bwd(ExecContext& ctx, const GroupRouterBwd& a, std::span<std::byte> ws) {
  const int64_t T = a.probs.dim(0);
  const int64_t E = a.probs.dim(1);
  const int64_t K = a.topk_ids.dim(1);
  const Rows<int32_t> topk_ids(a.topk_ids);
  const Rows<float> dlogits(a.dlogits), dweights(a.dtopk_weights), dprobs(a.dprobs), dlse(a.dlse);
  const Rows<float> probs(a.probs), router_scale(a.router_scale);
  const float* scale = router_scale[0];
  auto* partial = reinterpret_cast<float*>(ws.data());  // [tasks, E]

  const auto token = [&](int64_t t, float* dscale) {
    const int32_t* ids = topk_ids[t];
    const float* p = probs[t];
    const float* dw = dweights[t];
    float kept = 0;
    for (int64_t k = 0; k < K; ++k) {
      check_index("group_router_bwd", "topk_ids", t, k, ids[k], E);
      kept += p[ids[k]];
    }
    if (!a.renormalize) kept = 1;
    const auto d = [&](int64_t k) { return scale ? dw[k] * scale[ids[k]] : dw[k]; };
    float mean = 0;
    for (int64_t k = 0; k < K && a.renormalize; ++k) mean += d(k) * (p[ids[k]] / kept);
    const auto dp = [&](int64_t k) { return (d(k) - mean) / kept; };
    float dot = 0;
    for (int64_t k = 0; k < K; ++k) dot += dp(k) * p[ids[k]];
    kernels.softmax_bwd(dlogits[t], dprobs[t], p, dlse ? *dlse[t] : 0.0F, dot, E);
    for (int64_t k = 0; k < K; ++k) dlogits[t][ids[k]] += p[ids[k]] * dp(k);
    for (int64_t k = 0; k < K && scale; ++k) dscale[ids[k]] += dw[k] * (p[ids[k]] / kept);
  };

  const int64_t grain = rows_per_task(E);
  parallel_for(*ctx.pool, T, grain, [&](int64_t begin, int64_t end) {
    float* dscale = scale ? partial + begin / grain * E : nullptr;
    if (scale) std::fill_n(dscale, E, 0.0F);
    for (int64_t t = begin; t < end; ++t) token(t, dscale);
  });
  if (!scale) return;
  auto* drouter_scale = a.drouter_scale.ptr<float>();
  for (int64_t task = 0; task < num_row_tasks(T, E); ++task)
    for (int64_t e = 0; e < E; ++e) drouter_scale[e] += partial[task * E + e];
}

int64_t bwd_workspace(const ExecContext&, const GroupRouterBwd& a) {
  const int64_t E = a.probs.dim(1);
  return a.router_scale ? num_row_tasks(a.probs.dim(0), E) * E * size_of(DType::kF32) : 0;
}

}  // namespace

std::vector<Impl<GroupRouterFwd>> group_router_fwd_impls() {
  return isa_impls<GroupRouterFwd>(fwd<vec::avx512::group_router>, fwd<vec::avx2::group_router>, fwd<kRef>,
                                   fwd_workspace);
}

std::vector<Impl<GroupRouterBwd>> group_router_bwd_impls() {
  return isa_impls<GroupRouterBwd>(bwd<vec::avx512::group_router>, bwd<vec::avx2::group_router>, bwd<kRef>,
                                   bwd_workspace);
}

}  // namespace moge::ops::cpu
