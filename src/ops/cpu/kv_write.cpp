#include <algorithm>

#include "ops/cpu/attention.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/quantize.h"

namespace moge::ops::cpu {

namespace {

template <const vec::StoredRowKernels& stored>
void kv_write(ExecContext& ctx, const KvWrite& a, std::span<std::byte>) {
  const Heads k(a.k), v(a.v);
  const int64_t T = a.k.dim(0), KV = a.k.dim(1), Dh = a.k.dim(2);
  const int64_t P = a.k_pages.dim(0), PS = a.k_pages.dim(2);
  const auto slots = elements<int32_t>(a.slots);
  for (int64_t t = 0; t < T; ++t)
    check<ShapeError>(slots[t] >= 0 && slots[t] < P * PS, "kv_write: slots[", t,
                      "]: expected a slot below P*PS=", P * PS, ", got ", slots[t]);
  const auto offset = [&](const Tensor& pages, int64_t t, int64_t h) {
    return slots[t] / PS * pages.stride(0) + h * pages.stride(1) + slots[t] % PS * pages.stride(2);
  };
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, KV * Dh));
  parallel_for(*ctx.pool, T, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < KV; ++h) {
        store_row(stored, a.k_pages, offset(a.k_pages, t, h), k.at(t, h), Dh);
        store_row(stored, a.v_pages, offset(a.v_pages, t, h), v.at(t, h), Dh);
      }
    }
  });
}

}  // namespace

std::vector<Impl<KvWrite>> kv_write_impls() {
  return isa_impls<KvWrite>(kv_write<vec::avx512::stored_rows>, kv_write<vec::avx2::stored_rows>,
                            kv_write<stored_rows_ref>);
}

}  // namespace moge::ops::cpu
