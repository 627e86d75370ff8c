// Attention as the textbook writes it: one row at a time, scores recomputed instead of stored, sums in
// double.
#include <algorithm>
#include <cmath>

#include "ops/cpu/attention.h"
#include "ops/cpu/element.h"
#include "ops/cpu/isa.h"

namespace moge::ops::cpu {

namespace {

template <class T>
double dot(const float* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return sum;
}

/// One query row over n keys; key(j) and value(j) are rows, until the next call. `acc` is [Dh]. Returns log
/// sum exp.
template <class Key, class Value>
double attend_row(float* out, const float* q, int64_t n, int64_t Dh, double scale, const Key& key,
                  const Value& value, double* acc) {
  const auto score = [&](int64_t j) { return scale * dot(q, key(j), Dh); };
  double m = -INFINITY, sum = 0;
  for (int64_t j = 0; j < n; ++j) m = std::max(m, score(j));
  std::fill_n(acc, Dh, 0.0);
  for (int64_t j = 0; j < n; ++j) {
    const double p = std::exp(score(j) - m);
    sum += p;
    const auto* v = value(j);
    for (int64_t i = 0; i < Dh; ++i) acc[i] += p * v[i];
  }
  for (int64_t i = 0; i < Dh; ++i) out[i] = static_cast<float>(acc[i] / sum);
  return m + std::log(sum);
}

/// `rows` accumulators of [Dh] doubles for each thread.
int64_t accumulator_bytes(const ExecContext& ctx, int64_t rows, int64_t Dh) {
  return ctx.pool->num_threads() * rows * Dh * static_cast<int64_t>(sizeof(double));
}

void fwd(ExecContext& ctx, const AttentionFwd& a, std::span<std::byte> ws) {
  const Heads out(a.out), q(a.q), k(a.k), v(a.v);
  const int64_t T = a.q.dim(0), H = a.q.dim(1), Dh = a.q.dim(2), G = H / a.k.dim(1);
  const auto cu = checked_offsets("attention_fwd", "cu_seqlens", a.cu_seqlens, T);
  ctx.pool->run(T * H, [&](int64_t task, int thread) {
    const int64_t t = task / H, h = task % H;
    const int64_t start = *(std::upper_bound(cu.begin(), cu.end(), t) - 1);
    const double lse = attend_row(
        out.at(t, h), q.at(t, h), t + 1 - start, Dh, a.scale,
        [&](int64_t j) { return k.at(start + j, h / G); }, [&](int64_t j) { return v.at(start + j, h / G); },
        reinterpret_cast<double*>(ws.data()) + thread * Dh);
    if (a.lse) a.lse.ptr<float>()[t * a.lse.stride(0) + h] = static_cast<float>(lse);
  });
}

/// With p = exp(scale q.k - lse), dp = dout.v and ds = p (dp - dout.out): dv_j = sum_t p dout_t,
/// dk_j = scale sum_t ds q_t, dq_t = scale sum_j ds k_j.
void bwd(ExecContext& ctx, const AttentionBwd& a, std::span<std::byte> ws) {
  const Heads dq(a.dq), dk(a.dk), dv(a.dv), dout(a.dout), out(a.out), q(a.q), k(a.k), v(a.v);
  const int64_t T = a.q.dim(0), H = a.q.dim(1), KV = a.k.dim(1), Dh = a.q.dim(2), G = H / KV;
  const auto cu = checked_offsets("attention_bwd", "cu_seqlens", a.cu_seqlens, T);
  struct Terms {
    double p, ds;
  };
  const auto terms = [&](int64_t t, int64_t h, int64_t j) {
    const double lse = a.lse.ptr<float>()[t * a.lse.stride(0) + h];
    const double p = std::exp(a.scale * dot(q.at(t, h), k.at(j, h / G), Dh) - lse);
    const double dp = dot(dout.at(t, h), v.at(j, h / G), Dh);
    return Terms{p, a.scale * p * (dp - dot(dout.at(t, h), out.at(t, h), Dh))};
  };
  ctx.pool->run(T * H, [&](int64_t task, int thread) {
    const int64_t t = task / H, h = task % H;
    double* acc = reinterpret_cast<double*>(ws.data()) + thread * 2 * Dh;
    std::fill_n(acc, Dh, 0.0);
    for (int64_t j = *(std::upper_bound(cu.begin(), cu.end(), t) - 1); j <= t; ++j) {
      const double ds = terms(t, h, j).ds;
      for (int64_t i = 0; i < Dh; ++i) acc[i] += ds * k.at(j, h / G)[i];
    }
    std::copy_n(acc, Dh, dq.at(t, h));
  });
  ctx.pool->run(T * KV, [&](int64_t task, int thread) {
    const int64_t j = task / KV, kv = task % KV;
    double* acc = reinterpret_cast<double*>(ws.data()) + thread * 2 * Dh;
    std::fill_n(acc, 2 * Dh, 0.0);
    const int64_t end = *std::upper_bound(cu.begin(), cu.end(), j);
    for (int64_t h = kv * G; h < (kv + 1) * G; ++h) {
      for (int64_t t = j; t < end; ++t) {
        const auto [p, ds] = terms(t, h, j);
        for (int64_t i = 0; i < Dh; ++i) acc[i] += ds * q.at(t, h)[i];
        for (int64_t i = 0; i < Dh; ++i) acc[Dh + i] += p * dout.at(t, h)[i];
      }
    }
    std::copy_n(acc, Dh, dk.at(j, kv));
    std::copy_n(acc + Dh, Dh, dv.at(j, kv));
  });
}

/// A thread has [Dh] doubles for the sums and for a cached row each, then the query row and the output row in
/// fp32.
void paged(ExecContext& ctx, const PagedAttention& a, std::span<std::byte> ws) {
  const PagedCache cache(a);
  const int64_t T = a.q.dim(0), H = a.q.dim(1), Dh = a.q.dim(2), G = H / a.k_pages.dim(1);
  ctx.pool->run(T * H, [&](int64_t task, int thread) {
    const int64_t t = task / H, h = task % H;
    const int64_t b = std::upper_bound(cache.cu_q.begin(), cache.cu_q.end(), t) - cache.cu_q.begin() - 1;
    auto* acc = reinterpret_cast<double*>(ws.data()) + thread * 3 * Dh;
    double* cached_row = acc + Dh;
    auto* q = reinterpret_cast<float*>(cached_row + Dh);
    float* out = q + Dh;
    const auto row = [&](const Tensor& x) { return t * x.stride(0) + h * x.stride(1); };
    const auto cached = [&](const Tensor& pages, const Tensor& scales) {
      return [&, b, kv = h / G](int64_t j) -> const double* {
        const int64_t first = cache.row(pages, b, kv, j);
        const double scale = scales ? load_element(scales, cache.row(scales, b, kv, j)) : 1;
        for (int64_t i = 0; i < Dh; ++i) cached_row[i] = load_element(pages, first + i) * scale;
        return cached_row;
      };
    };
    for (int64_t i = 0; i < Dh; ++i) q[i] = load_element(a.q, row(a.q) + i);
    if (cache.kv_lens[b] <= 0)
      std::fill_n(out, Dh, 0.0F);
    else
      attend_row(out, q, cache.kv_lens[b] - cache.cu_q[b + 1] + t + 1, Dh, a.scale,
                 cached(a.k_pages, a.k_scales), cached(a.v_pages, a.v_scales), acc);
    for (int64_t i = 0; i < Dh; ++i) store_element(a.out, row(a.out) + i, out[i]);
  });
}

}  // namespace

constinit const Impl<AttentionFwd> attention_fwd_ref{
    "cpu.ref", DeviceKind::kCpu, supports_all<AttentionFwd>, fwd,
    [](const ExecContext& ctx, const AttentionFwd& a) { return accumulator_bytes(ctx, 1, a.q.dim(2)); }};
constinit const Impl<AttentionBwd> attention_bwd_ref{
    "cpu.ref", DeviceKind::kCpu, supports_all<AttentionBwd>, bwd,
    [](const ExecContext& ctx, const AttentionBwd& a) { return accumulator_bytes(ctx, 2, a.q.dim(2)); }};
constinit const Impl<PagedAttention> paged_attention_ref{
    "cpu.ref", DeviceKind::kCpu, supports_all<PagedAttention>, paged,
    [](const ExecContext& ctx, const PagedAttention& a) { return accumulator_bytes(ctx, 3, a.q.dim(2)); }};

}  // namespace moge::ops::cpu
