#include "ops/cpu/rope.h"

#include <cmath>

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

void table_row_ref(float* cosines, float* sines, double position, const double* frequencies, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    cosines[i] = static_cast<float>(std::cos(position * frequencies[i]));
    sines[i] = static_cast<float>(std::sin(position * frequencies[i]));
  }
}

void rotate_heads_ref(float* x, int64_t head_stride, int64_t H, const float* cosines, const float* sines,
                      float sign, int64_t half) {
  for (int64_t h = 0; h < H; ++h, x += head_stride) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i];
      const float b = x[i + half];
      const float s = sign * sines[i];
      x[i] = a * cosines[i] - b * s;
      x[i + half] = b * cosines[i] + a * s;
    }
  }
}

}  // namespace

const vec::RopeKernels rope_ref{table_row_ref, rotate_heads_ref};

namespace {

template <const vec::RopeKernels& kernels>
void table(ExecContext& ctx, const RopeTable& a, std::span<std::byte> ws) {
  const int64_t Dh = a.cos_sin.dim(1);
  const int64_t half = Dh / 2;
  auto* frequencies = reinterpret_cast<double*>(ws.data());  // [Dh/2]
  for (int64_t i = 0; i < half; ++i)
    frequencies[i] = std::pow(a.theta, -2.0 * static_cast<double>(i) / static_cast<double>(Dh));
  const Rows<float> cos_sin(a.cos_sin);
  const Rows<int32_t> positions(a.positions);
  // A sine costs as much as some 16 copied elements.
  parallel_for(*ctx.pool, a.cos_sin.dim(0), rows_per_task(16 * Dh), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      kernels.table_row(cos_sin[t], cos_sin[t] + half, *positions[t], frequencies, half);
  });
}

int64_t table_workspace(const ExecContext&, const RopeTable& a) {
  return a.cos_sin.dim(1) / 2 * static_cast<int64_t>(sizeof(double));
}

template <const vec::RopeKernels& kernels>
void rotate(ExecContext& ctx, const Rope& a, std::span<std::byte>) {
  const int64_t H = a.x.dim(1);
  const int64_t half = a.x.dim(2) / 2;
  const Rows<float> x(a.x), cos_sin(a.cos_sin);
  parallel_for(*ctx.pool, a.x.dim(0), rows_per_task(H * a.x.dim(2)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      kernels.rotate_heads(x[t], a.x.stride(1), H, cos_sin[t], cos_sin[t] + half, a.inverse ? -1.0F : 1.0F,
                           half);
  });
}

}  // namespace

std::vector<Impl<RopeTable>> rope_table_impls() {
  return isa_impls<RopeTable>(table<vec::avx512::rope>, table<vec::avx2::rope>, table<rope_ref>,
                              table_workspace);
}

std::vector<Impl<Rope>> rope_impls() {
  return isa_impls<Rope>(rotate<vec::avx512::rope>, rotate<vec::avx2::rope>, rotate<rope_ref>);
}

}  // namespace moge::ops::cpu
