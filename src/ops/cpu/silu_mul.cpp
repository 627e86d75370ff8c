#include "ops/cpu/silu_mul.h"

#include <cmath>

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/silu_mul.h"

namespace moge::ops::cpu {

namespace {

void fwd_row_ref(float* h, const float* gate, const float* up, float weight, int64_t F) {
  for (int64_t i = 0; i < F; ++i) h[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i] * weight;
}

/// With s = sigmoid(g): silu(g) = g s, silu'(g) = s (1 + g (1 - s)).
float bwd_row_ref(float* dgate, float* dup, const float* dh, const float* gate, const float* up, float weight,
                  int64_t F) {
  double dweight = 0;
  for (int64_t i = 0; i < F; ++i) {
    const float g = gate[i];
    const float u = up[i];
    const float s = 1 / (1 + std::exp(-g));
    dweight += double{dh[i]} * (g * s) * u;
    dgate[i] = dh[i] * weight * u * s * (1 + g * (1 - s));
    dup[i] = dh[i] * weight * g * s;
  }
  return static_cast<float>(dweight);
}

const vec::SiluMulKernels kRef{fwd_row_ref, bwd_row_ref};

template <const vec::SiluMulKernels& kernels>
void fwd(ExecContext& ctx, const SiluMulFwd& a, std::span<std::byte>) {
  const int64_t F = a.h.dim(1);
  const Rows<float> h(a.h), gate_up(a.gate_up), row_weight(a.row_weight);
  parallel_for(*ctx.pool, a.h.dim(0), rows_per_task(F), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      kernels.fwd_row(h[r], gate_up[r], gate_up[r] + F, row_weight ? *row_weight[r] : 1.0F, F);
  });
}

template <const vec::SiluMulKernels& kernels>
void bwd(ExecContext& ctx, const SiluMulBwd& a, std::span<std::byte>) {
  const int64_t F = a.dh.dim(1);
  const Rows<float> dgate_up(a.dgate_up), drow_weight(a.drow_weight);
  const Rows<float> dh(a.dh), gate_up(a.gate_up), row_weight(a.row_weight);
  parallel_for(*ctx.pool, a.dh.dim(0), rows_per_task(F), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float dweight = kernels.bwd_row(dgate_up[r], dgate_up[r] + F, dh[r], gate_up[r], gate_up[r] + F,
                                            row_weight ? *row_weight[r] : 1.0F, F);
      if (drow_weight) *drow_weight[r] = dweight;
    }
  });
}

}  // namespace

std::vector<Impl<SiluMulFwd>> silu_mul_fwd_impls() {
  return isa_impls<SiluMulFwd>(fwd<vec::avx512::silu_mul>, fwd<vec::avx2::silu_mul>, fwd<kRef>);
}

std::vector<Impl<SiluMulBwd>> silu_mul_bwd_impls() {
  return isa_impls<SiluMulBwd>(bwd<vec::avx512::silu_mul>, bwd<vec::avx2::silu_mul>, bwd<kRef>);
}

}  // namespace moge::ops::cpu
