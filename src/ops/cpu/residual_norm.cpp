#include "ops/cpu/residual_norm.h"

#include "ops/cpu/element.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/quantize.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

void add_row(float* x, const BF16* row, int64_t D) {
  for (int64_t i = 0; i < D; ++i) x[i] += to_f32(row[i]);
}

void run(ExecContext& ctx, const ResidualNorm& a, std::span<std::byte> ws) {
  const int64_t T = a.x.dim(0), D = a.x.dim(1);
  const int64_t R = a.rows ? a.rows.dim(0) : 0, S = a.slot_row ? a.slot_row.dim(1) : 0;
  const Rows<float> x(a.x), q_scale(a.q_scale);
  const Rows<BF16> delta(a.delta), rows(a.rows), normed(a.normed);
  const Rows<int32_t> slot_row(a.slot_row);
  const auto* weight = a.weight.ptr<float>();
  ctx.pool->run(T, [&](int64_t t, int thread) {
    float* n = reinterpret_cast<float*>(ws.data()) + thread * D;
    float* sum = a.keep_x ? n : x[t];
    if (a.keep_x) std::copy_n(x[t], D, n);
    if (delta) add_row(sum, delta[t], D);
    for (int64_t s = 0; s < S; ++s) {
      const int32_t r = slot_row[t][s];
      check_index("residual_norm", "slot_row", t, s, r, R);
      add_row(sum, rows[r], D);
    }
    double squares = 0;
    for (int64_t i = 0; i < D; ++i) squares += double{sum[i]} * sum[i];
    const auto rstd = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(D) + a.eps));
    for (int64_t i = 0; i < D; ++i) n[i] = sum[i] * rstd * weight[i];
    if (normed) std::transform(n, n + D, normed[t], [](float v) { return to_bf16(v); });
    if (q_scale) *q_scale[t] = quantize_row(a.q, t * a.q.stride(0), n, D);
  });
}

int64_t workspace(const ExecContext& ctx, const ResidualNorm& a) {
  return ctx.pool->num_threads() * a.x.dim(1) * size_of(DType::kF32);
}

}  // namespace

std::vector<Impl<ResidualNorm>> residual_norm_impls() {
  return {{"cpu.ref", DeviceKind::kCpu, supports_all<ResidualNorm>, run, workspace}};
}

}  // namespace moge::ops::cpu
