#include "ops/cpu/rope_kv_write.h"

#include "ops/cpu/isa.h"
#include "ops/cpu/quantize.h"
#include "ops/cpu/rmsnorm.h"
#include "ops/cpu/rope.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/rope_kv_write.h"

namespace moge::ops::cpu {

namespace {

void norm_head(float* x, const float* weight, int64_t Dh, float eps) {
  rmsnorm_ref.fwd_row(x, nullptr, x, weight, Dh, eps);
}
void turn_head(float* x, const float* cos_sin, int64_t Dh) {
  rope_ref.rotate_heads(x, 0, 1, cos_sin, cos_sin + Dh / 2, 1, Dh / 2);
}

const vec::RopeKvWriteKernels kRef{norm_head, turn_head};

template <const vec::RopeKvWriteKernels& kernels, const vec::StoredRowKernels& stored>
void run(ExecContext& ctx, const RopeKvWrite& a, std::span<std::byte> ws) {
  const int64_t T = a.q.dim(0), H = a.q.dim(1), Dh = a.q.dim(2);
  const int64_t P = a.k_pages.dim(0), KV = a.k_pages.dim(1), PS = a.k_pages.dim(2);
  const Rows<float> cos_sin(a.cos_sin), q_norm(a.q_norm), k_norm(a.k_norm);
  const Rows<int32_t> slots(a.slots);
  ctx.pool->run(T, [&](int64_t t, int thread) {
    float* x = reinterpret_cast<float*>(ws.data()) + thread * Dh;
    const auto load = [&](int64_t head) {
      load_row(stored, x, a.qkv, t * a.qkv.stride(0) + head * a.qkv.stride(1), Dh);
    };
    const int64_t slot = *slots[t];
    check<ShapeError>(slot < P * PS, "rope_kv_write: slots[", t, "]: expected a slot below P*PS=", P * PS,
                      ", got ", slot);
    const auto write = [&](const Tensor& pages, const Tensor& scales, int64_t kv) {
      const auto at = [&](const Tensor& paged) {
        return slot / PS * paged.stride(0) + kv * paged.stride(1) + slot % PS * paged.stride(2);
      };
      if (scales)
        scales.ptr<float>()[at(scales)] = quantize_row(stored, pages, at(pages), x, Dh);
      else
        store_row(stored, pages, at(pages), x, Dh);
    };
    for (int64_t h = 0; h < H; ++h) {
      load(h);
      if (q_norm) kernels.norm(x, q_norm[0], Dh, a.eps);
      kernels.turn(x, cos_sin[t], Dh);
      store_row(stored, a.q, t * a.q.stride(0) + h * a.q.stride(1), x, Dh);
    }
    for (int64_t kv = 0; kv < KV && slot >= 0; ++kv) {
      load(H + kv);
      if (k_norm) kernels.norm(x, k_norm[0], Dh, a.eps);
      kernels.turn(x, cos_sin[t], Dh);
      write(a.k_pages, a.k_scales, kv);
      load(H + KV + kv);
      write(a.v_pages, a.v_scales, kv);
    }
  });
}

int64_t workspace(const ExecContext& ctx, const RopeKvWrite& a) {
  return ctx.pool->num_threads() * a.q.dim(2) * size_of(DType::kF32);
}

}  // namespace

std::vector<Impl<RopeKvWrite>> rope_kv_write_impls() {
  return isa_impls<RopeKvWrite>(run<vec::avx512::rope_kv_write, vec::avx512::stored_rows>,
                                run<vec::avx2::rope_kv_write, vec::avx2::stored_rows>,
                                run<kRef, stored_rows_ref>, workspace);
}

}  // namespace moge::ops::cpu
