#include "ops/cpu/combine.h"

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/combine.h"

namespace moge::ops::cpu {

namespace {

void fwd_row_ref(float* y, const float* add, const float* rows, int64_t row_stride, const int32_t* slots,
                 const float* weights, int64_t S, int64_t D) {
  for (int64_t i = 0; i < D; ++i) {
    float sum = add ? add[i] : 0;
    for (int64_t s = 0; s < S; ++s) sum += (weights ? weights[s] : 1.0F) * rows[slots[s] * row_stride + i];
    y[i] = sum;
  }
}

float bwd_row_ref(float* drow, const float* dy, const float* row, float weight, int64_t D) {
  double dot = 0;
  for (int64_t i = 0; i < D; ++i) {
    if (row) dot += double{dy[i]} * row[i];
    drow[i] = weight * dy[i];
  }
  return static_cast<float>(dot);
}

const vec::CombineKernels kRef{fwd_row_ref, bwd_row_ref};

template <const vec::CombineKernels& kernels>
void fwd(ExecContext& ctx, const CombineFwd& a, std::span<std::byte>) {
  const int64_t D = a.y.dim(1);
  const int64_t R = a.rows.dim(0);
  const int64_t S = a.slot_row.dim(1);
  const Rows<float> y(a.y), rows(a.rows), weights(a.weights), add(a.add);
  const Rows<int32_t> slot_row(a.slot_row);
  parallel_for(*ctx.pool, a.y.dim(0), rows_per_task((S + 1) * D), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      check_indices("combine_fwd", "slot_row", slot_row[t], t, S, R);
      kernels.fwd_row(y[t], add[t], rows[0], rows.stride(), slot_row[t], weights[t], S, D);
    }
  });
}

template <const vec::CombineKernels& kernels>
void bwd(ExecContext& ctx, const CombineBwd& a, std::span<std::byte>) {
  const int64_t D = a.dy.dim(1);
  const int64_t R = a.drows.dim(0);
  const int64_t S = a.slot_row.dim(1);
  const Rows<float> drows(a.drows), dweights(a.dweights), dy(a.dy), rows(a.rows), weights(a.weights);
  const Rows<int32_t> slot_row(a.slot_row);
  parallel_for(*ctx.pool, a.dy.dim(0), rows_per_task((S + 1) * D), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      check_indices("combine_bwd", "slot_row", slot_row[t], t, S, R);
      for (int64_t s = 0; s < S; ++s) {
        const int32_t r = slot_row[t][s];
        const float dot =
            kernels.bwd_row(drows[r], dy[t], weights ? rows[r] : nullptr, weights ? weights[t][s] : 1.0F, D);
        if (weights) dweights[t][s] = dot;
      }
    }
  });
}

}  // namespace

std::vector<Impl<CombineFwd>> combine_fwd_impls() {
  return isa_impls<CombineFwd>(fwd<vec::avx512::combine>, fwd<vec::avx2::combine>, fwd<kRef>);
}

std::vector<Impl<CombineBwd>> combine_bwd_impls() {
  return isa_impls<CombineBwd>(bwd<vec::avx512::combine>, bwd<vec::avx2::combine>, bwd<kRef>);
}

}  // namespace moge::ops::cpu
