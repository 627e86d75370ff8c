// Sampling as its documentation reads: the whole vocabulary sorted, filters one after the other, in double.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/rng.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/sampling.h"

namespace moge::ops::cpu {

SamplingRequest::SamplingRequest(const Sampling& a, int64_t b)
    : V(a.logits.dim(1)),
      logits(a.logits.ptr<float>() + b * a.logits.stride(0)),
      counts(a.output_counts ? a.output_counts.ptr<int32_t>() + b * a.output_counts.stride(0) : nullptr),
      prompt(a.prompt_mask ? a.prompt_mask.ptr<uint8_t>() + b * a.prompt_mask.stride(0) : nullptr) {
  // Comparisons are written so that NaN takes the "off" side.
  const auto f = [b](const Tensor& t) { return t.ptr<float>()[b]; };
  temperature = f(a.temperature) > 0 ? f(a.temperature) : 0.0F;
  const int32_t k = a.top_k.ptr<int32_t>()[b];
  top_k = k >= 1 ? std::min<int64_t>(k, V) : V;
  top_p = f(a.top_p) < 1 ? std::max(f(a.top_p), 0.0F) : 1.0F;
  min_z = f(a.min_p) > 0 ? std::log(f(a.min_p)) : -INFINITY;
  repetition = f(a.repetition_penalty) > 0 ? f(a.repetition_penalty) : 1.0F;
  presence = std::isnan(f(a.presence_penalty)) ? 0.0F : f(a.presence_penalty);
  frequency = std::isnan(f(a.frequency_penalty)) ? 0.0F : f(a.frequency_penalty);
  const Rng rng(static_cast<uint64_t>(a.seeds.ptr<int64_t>()[b]));
  const auto step = static_cast<uint64_t>(a.steps.ptr<int64_t>()[b]);
  const uint64_t bits = uint64_t{rng.bits(2 * step)} << 32 | rng.bits(2 * step + 1);
  u = static_cast<double>(bits >> 11) * 0x1p-53;
}

bool SamplingRequest::penalised() const {
  return (repetition != 1 && (counts || prompt)) || ((presence != 0 || frequency != 0) && counts);
}

namespace {

float adjusted(const SamplingRequest& r, int64_t v) {
  float x = std::isnan(r.logits[v]) ? -INFINITY : r.logits[v];
  const int32_t count = r.counts ? r.counts[v] : 0;
  if (count > 0 || (r.prompt && r.prompt[v])) x = x > 0 ? x / r.repetition : x * r.repetition;
  if (count > 0) x = x - r.frequency * static_cast<float>(count) - r.presence;
  return x;
}

int64_t pick(const SamplingRequest& r, float* z, double* p, int32_t* order) {
  for (int64_t v = 0; v < r.V; ++v) z[v] = adjusted(r, v);
  const float top = *std::max_element(z, z + r.V);
  const int64_t best = std::find(z, z + r.V, top) - z;
  if (r.temperature == 0 || std::isinf(top)) return best;
  for (int64_t v = 0; v < r.V; ++v) {
    z[v] = (z[v] - top) / r.temperature;
    p[v] = std::exp(double{z[v]});
    order[v] = static_cast<int32_t>(v);
  }
  std::sort(order, order + r.V, [&](int32_t i, int32_t j) { return z[i] != z[j] ? z[i] > z[j] : i < j; });
  int64_t kept = r.top_k;
  if (r.top_p < 1) {
    double total = 0, sum = 0;
    for (int64_t i = 0; i < kept; ++i) total += p[order[i]];
    int64_t n = 0;
    while (n < kept && (n == 0 || sum < r.top_p * total)) sum += p[order[n++]];
    kept = n;
  }
  while (kept > 1 && z[order[kept - 1]] < r.min_z) --kept;
  std::sort(order, order + kept);
  double total = 0, sum = 0;
  for (int64_t i = 0; i < kept; ++i) total += p[order[i]];
  for (int64_t i = 0; i < kept; ++i)
    if ((sum += p[order[i]]) > r.u * total) return order[i];
  return order[kept - 1];
}

double logprob(const SamplingRequest& r, int64_t token) {
  double top = -INFINITY, sum = 0;
  for (int64_t v = 0; v < r.V; ++v) top = std::max<double>(top, r.logits[v]);
  for (int64_t v = 0; v < r.V; ++v) sum += std::exp(r.logits[v] - top);
  return r.logits[token] - top - std::log(sum);
}

/// Per thread: z [V] f32, order [V] i32, p [V] f64.
int64_t workspace(const ExecContext& ctx, const Sampling& a) {
  return ctx.pool->num_threads() * a.logits.dim(1) * 16;
}

void run(ExecContext& ctx, const Sampling& a, std::span<std::byte> ws) {
  const int64_t B = a.logits.dim(0), V = a.logits.dim(1);
  ctx.pool->run(B, [&](int64_t b, int thread) {
    const SamplingRequest r(a, b);
    auto* p = reinterpret_cast<double*>(ws.data() + thread * V * 16);
    auto* z = reinterpret_cast<float*>(p + V);
    const int64_t token = pick(r, z, p, reinterpret_cast<int32_t*>(z + V));
    a.tokens.ptr<int32_t>()[b] = static_cast<int32_t>(token);
    if (a.logprobs) a.logprobs.ptr<float>()[b] = static_cast<float>(logprob(r, token));
  });
}

}  // namespace

constinit const Impl<Sampling> sampling_ref{"cpu.ref", DeviceKind::kCpu, supports_all<Sampling>, run,
                                            workspace};

}  // namespace moge::ops::cpu
