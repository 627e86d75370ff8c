#include "ops/cpu/quantize.h"

#include "ops/cpu/element.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

float quantize_row(const Tensor& q, int64_t offset, const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  const float scale = largest / largest_quantum(q.dtype);
  for (int64_t i = 0; i < n; ++i) store_element(q, offset + i, scale == 0 ? 0 : x[i] / scale);
  return scale;
}

namespace {

void run(ExecContext& ctx, const QuantizeRows& a, std::span<std::byte> ws) {
  const int64_t R = a.x.dim(0), K = a.x.dim(1);
  const Rows<float> scale(a.scale);
  ctx.pool->run(R, [&](int64_t r, int thread) {
    float* row = reinterpret_cast<float*>(ws.data()) + thread * K;
    for (int64_t i = 0; i < K; ++i) row[i] = load_element(a.x, r * a.x.stride(0) + i);
    *scale[r] = quantize_row(a.q, r * a.q.stride(0), row, K);
  });
}

int64_t workspace(const ExecContext& ctx, const QuantizeRows& a) {
  return ctx.pool->num_threads() * a.x.dim(1) * size_of(DType::kF32);
}

}  // namespace

std::vector<Impl<QuantizeRows>> quantize_rows_impls() {
  return {{"cpu.ref", DeviceKind::kCpu, supports_all<QuantizeRows>, run, workspace}};
}

}  // namespace moge::ops::cpu
