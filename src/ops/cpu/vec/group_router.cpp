#include "ops/cpu/vec/group_router.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

using I32 = int32_t __attribute__((vector_size(sizeof(F32)), may_alias));

constexpr int32_t kEmpty = INT32_MIN;    ///< below every key
constexpr int32_t kNan = INT32_MIN + 1;  ///< below every number's key

/// Integers in the order of the floats, with -0 = +0 and NaN lowest.
inline I32 order_key(F32 x) {
  const I32 bits = __builtin_bit_cast(I32, x + splat(0.0F));
  const I32 key = bits ^ ((bits >> 31) & INT32_MAX);
  const I32 is_nan = (bits & INT32_MAX) > 0x7f800000;
  return is_nan ? I32{} + kNan : key;
}

/// The tables of one vector of tokens: element [i][lane] belongs to token `lane`.
struct Scratch {
  Scratch(void* memory, const RouterTokens& a)
      : probs(static_cast<float*>(memory)),
        ids(reinterpret_cast<I32*>(probs + a.E * kLanes)),
        keys(ids + a.K) {}
  float* probs;  // [E][kLanes]: first the logits
  I32* ids;      // [K]
  I32* keys;     // [K / G], falling
};

/// The `picks` best of the experts first .. first+experts-1, into ids. Each expert is inserted into a list by
/// falling key; it passes an earlier one only when greater: ties go to the lowest index.
inline __attribute__((always_inline)) void select_group(I32* keys, I32* ids, const float* logits,
                                                        int64_t first, int64_t experts, int64_t picks) {
  for (int64_t j = 0; j < picks; ++j) keys[j] = ids[j] = I32{} + kEmpty;
  for (int64_t e = first; e < first + experts; ++e) {
    I32 key = order_key(load(logits + e * kLanes));
    I32 id = I32{} + static_cast<int32_t>(e);
    I32 shifting{};
    for (int64_t j = 0; j < picks; ++j) {
      const I32 old_key = keys[j];
      const I32 old_id = ids[j];
      shifting |= key > old_key;
      keys[j] = shifting ? key : old_key;
      ids[j] = shifting ? id : old_id;
      key = shifting ? old_key : key;
      id = shifting ? old_id : id;
    }
  }
}
/// The same with the list in registers.
template <int64_t kPicks>
inline void select_group_fixed(I32* ids, const float* logits, int64_t first, int64_t experts) {
  I32 keys[kPicks];
  I32 best[kPicks];
  select_group(keys, best, logits, first, experts, kPicks);
  for (int64_t j = 0; j < kPicks; ++j) ids[j] = best[j];
}

void fwd_lanes(const RouterTokens& a, const Scratch& s, int64_t begin, int64_t tokens) {
  // Idle lanes compute with whatever the scratch holds; nobody reads their results.
  for (int64_t lane = 0; lane < tokens; ++lane) {
    const float* logits = a.logits + (begin + lane) * a.logits_stride;
    for (int64_t e = 0; e < a.E; ++e) s.probs[e * kLanes + lane] = logits[e];
  }
  const int64_t picks = a.K / a.G;
  const int64_t experts = a.E / a.G;
  for (int64_t g = 0; g < a.G; ++g) {
    I32* ids = s.ids + g * picks;
    if (picks == 1)
      select_group_fixed<1>(ids, s.probs, g * experts, experts);
    else if (picks == 8 && kLanes == 16)  // AVX2 has too few registers
      select_group_fixed<8>(ids, s.probs, g * experts, experts);
    else
      select_group(s.keys, ids, s.probs, g * experts, experts, picks);
  }

  F32 top = load(s.probs);
  for (int64_t e = 1; e < a.E; ++e) top = max(load(s.probs + e * kLanes), top);
  F32 total = splat(0);
  for (int64_t e = 0; e < a.E; ++e) {
    const F32 p = exp(load(s.probs + e * kLanes) - top);
    total = total + p;
    store(s.probs + e * kLanes, p);
  }
  const F32 inverse = splat(1) / total;
  for (int64_t e = 0; e < a.E; ++e) store(s.probs + e * kLanes, load(s.probs + e * kLanes) * inverse);

  for (int64_t lane = 0; lane < tokens; ++lane) {
    const int64_t t = begin + lane;
    a.lse[t] = top[lane] + __builtin_logf(total[lane]);
    float* probs = a.probs + t * a.probs_stride;
    for (int64_t e = 0; e < a.E; ++e) probs[e] = s.probs[e * kLanes + lane];
    int32_t* ids = a.topk_ids + t * a.ids_stride;
    float* weights = a.topk_weights + t * a.weights_stride;
    float kept = 0;
    for (int64_t k = 0; k < a.K; ++k) {
      ids[k] = s.ids[k][lane];
      weights[k] = probs[ids[k]];
      kept += weights[k];
    }
    for (int64_t k = 0; k < a.K && a.renormalize; ++k) weights[k] /= kept;
    for (int64_t k = 0; k < a.K && a.router_scale; ++k) weights[k] *= a.router_scale[ids[k]];
  }
}

/// A token per lane: maxima, sums and selections over the experts need no shuffles then.
void fwd(const RouterTokens& a, void* scratch) {
  const Scratch s(scratch, a);
  for (int64_t t = 0; t < a.tokens; t += kLanes)
    fwd_lanes(a, s, t, a.tokens - t < kLanes ? a.tokens - t : kLanes);
}

void softmax_bwd(float* dlogits, const float* dprobs, const float* probs, float dlse, float dot_rest,
                 int64_t E) {
  F32 dots = splat(0);
  if (dprobs)
    for_lanes(E,
              [&](int64_t i, int64_t n) { dots = fma(load_n(dprobs + i, n), load_n(probs + i, n), dots); });
  const F32 shift = splat(dlse - (dot_rest + sum(dots)));
  for_lanes(E, [&](int64_t i, int64_t n) {
    const F32 d = dprobs ? load_n(dprobs + i, n) + shift : shift;
    store_n(dlogits + i, load_n(probs + i, n) * d, n);
  });
}

}  // namespace

extern const GroupRouterKernels group_router{fwd, softmax_bwd};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
