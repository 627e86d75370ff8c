#include "ops/cpu/quantize.h"

#include <algorithm>
#include <bit>

#include "ops/cpu/element.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

float quantize_ref(const Tensor& q, int64_t offset, const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  const float scale = largest / largest_quantum(q.dtype);
  for (int64_t i = 0; i < n; ++i) store_element(q, offset + i, scale == 0 ? 0 : x[i] / scale);
  return scale;
}
float to_i8_ref(int8_t* q, const float* x, int64_t n) {
  return quantize_ref(Tensor(q, DType::kI8, {n}), 0, x, n);
}
void to_bf16_ref(uint16_t* to, const float* x, int64_t n) {
  std::transform(x, x + n, to, [](float v) { return to_bf16(v).bits; });
}
void from_bf16_ref(float* to, const uint16_t* x, int64_t n) {
  std::transform(x, x + n, to, [](uint16_t bits) { return to_f32(BF16{bits}); });
}

}  // namespace

const vec::StoredRowKernels stored_rows_ref{to_i8_ref, to_bf16_ref, from_bf16_ref};

float quantize_row(const vec::StoredRowKernels& kernels, const Tensor& q, int64_t offset, const float* x,
                   int64_t n) {
  return q.dtype == DType::kI8 ? kernels.to_i8(q.ptr<int8_t>() + offset, x, n)
                               : quantize_ref(q, offset, x, n);
}

void store_row(const vec::StoredRowKernels& kernels, const Tensor& to, int64_t offset, const float* x,
               int64_t n) {
  if (to.dtype == DType::kBF16) return kernels.to_bf16(static_cast<uint16_t*>(to.data) + offset, x, n);
  if (to.dtype == DType::kF32) {
    std::copy_n(x, n, to.ptr<float>() + offset);
    return;
  }
  for (int64_t i = 0; i < n; ++i) store_element(to, offset + i, x[i]);
}

void load_row(const vec::StoredRowKernels& kernels, float* to, const Tensor& x, int64_t offset, int64_t n) {
  if (x.dtype == DType::kBF16)
    kernels.from_bf16(to, static_cast<const uint16_t*>(x.data) + offset, n);
  else
    std::copy_n(x.ptr<float>() + offset, n, to);
}

namespace {

template <const vec::StoredRowKernels& kernels>
void run(ExecContext& ctx, const QuantizeRows& a, std::span<std::byte> ws) {
  const int64_t R = a.x.dim(0), K = a.x.dim(1), rows = rows_per_task(K);
  const Rows<float> scale(a.scale);
  ctx.pool->run(ceil_div(R, rows), [&](int64_t task, int thread) {
    float* row = reinterpret_cast<float*>(ws.data()) + thread * K;
    for (int64_t r = task * rows; r < std::min(R, (task + 1) * rows); ++r) {
      load_row(kernels, row, a.x, r * a.x.stride(0), K);
      *scale[r] = quantize_row(kernels, a.q, r * a.q.stride(0), row, K);
    }
  });
}

int64_t workspace(const ExecContext& ctx, const QuantizeRows& a) {
  return ctx.pool->num_threads() * a.x.dim(1) * size_of(DType::kF32);
}

}  // namespace

std::vector<Impl<QuantizeRows>> quantize_rows_impls() {
  return isa_impls<QuantizeRows>(run<vec::avx512::stored_rows>, run<vec::avx2::stored_rows>,
                                 run<stored_rows_ref>, workspace);
}

}  // namespace moge::ops::cpu
