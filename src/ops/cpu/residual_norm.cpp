#include "ops/cpu/residual_norm.h"

#include <algorithm>

#include "ops/cpu/isa.h"
#include "ops/cpu/quantize.h"
#include "ops/cpu/rmsnorm.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/residual_norm.h"

namespace moge::ops::cpu {

namespace {

void add_row(float* x, const uint16_t* row, int64_t D) {
  for (int64_t i = 0; i < D; ++i) x[i] += to_f32(BF16{row[i]});
}

void row_ref(const vec::ResidualNormRow& a) {
  float* sum = a.keep_x ? a.n : a.x;
  if (a.keep_x) std::copy_n(a.x, a.D, a.n);
  if (a.delta) add_row(sum, a.delta, a.D);
  for (int64_t s = 0; s < a.S; ++s) add_row(sum, a.rows + a.slots[s] * a.row_stride, a.D);
  rmsnorm_ref.fwd_row(a.n, nullptr, sum, a.weight, a.D, a.eps);
  if (a.normed) stored_rows_ref.to_bf16(a.normed, a.n, a.D);
}

const vec::ResidualNormKernels kRef{row_ref};

uint16_t* bits(BF16* p) {
  return reinterpret_cast<uint16_t*>(p);
}

template <const vec::ResidualNormKernels& kernels, const vec::StoredRowKernels& stored>
void run(ExecContext& ctx, const ResidualNorm& a, std::span<std::byte> ws) {
  const int64_t T = a.x.dim(0), D = a.x.dim(1);
  const int64_t R = a.rows ? a.rows.dim(0) : 0, S = a.slot_row ? a.slot_row.dim(1) : 0;
  const Rows<float> x(a.x), q_scale(a.q_scale);
  const Rows<BF16> delta(a.delta), rows(a.rows), normed(a.normed);
  const Rows<int32_t> slot_row(a.slot_row);
  ctx.pool->run(T, [&](int64_t t, int thread) {
    if (S > 0) check_indices("residual_norm", "slot_row", slot_row[t], t, S, R);
    float* n = reinterpret_cast<float*>(ws.data()) + thread * D;
    kernels.row({.n = n,
                 .normed = bits(normed[t]),
                 .x = x[t],
                 .delta = bits(delta[t]),
                 .rows = bits(rows[0]),
                 .row_stride = rows.stride(),
                 .slots = slot_row[t],
                 .S = S,
                 .weight = a.weight.ptr<float>(),
                 .D = D,
                 .eps = a.eps,
                 .keep_x = a.keep_x});
    if (q_scale) *q_scale[t] = quantize_row(stored, a.q, t * a.q.stride(0), n, D);
  });
}

int64_t workspace(const ExecContext& ctx, const ResidualNorm& a) {
  return ctx.pool->num_threads() * a.x.dim(1) * size_of(DType::kF32);
}

}  // namespace

std::vector<Impl<ResidualNorm>> residual_norm_impls() {
  return isa_impls<ResidualNorm>(run<vec::avx512::residual_norm, vec::avx512::stored_rows>,
                                 run<vec::avx2::residual_norm, vec::avx2::stored_rows>,
                                 run<kRef, stored_rows_ref>, workspace);
}

}  // namespace moge::ops::cpu
