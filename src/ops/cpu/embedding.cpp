#include "ops/cpu/embedding.h"

#include "ops/cpu/isa.h"
#include "ops/cpu/matmul_panels.h"
#include "ops/cpu/quantize.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/embedding.h"

namespace moge::ops::cpu {

namespace {

void add_ref(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

const vec::EmbeddingKernels kRef{add_ref};

void check_ids(const char* op, const Tensor& ids, int64_t V) {
  const Rows<int32_t> id(ids);
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    if (*id[t] < 0 || *id[t] >= V)
      throw ShapeError(str(op, ": ids[", t, "]: expected 0..", V - 1, ", got ", *id[t]));
  }
}

template <const vec::StoredRowKernels& stored>
void fwd(ExecContext& ctx, const EmbeddingFwd& a, std::span<std::byte>) {
  check_ids("embedding_fwd", a.ids, a.weight.dim(0));
  const int64_t D = a.y.dim(1);
  const Rows<float> y(a.y);
  const Rows<int32_t> ids(a.ids);
  const auto each_token = [&](const auto& write_row) {
    parallel_for(*ctx.pool, a.y.dim(0), rows_per_task(D), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) write_row(y[t], *ids[t]);
    });
  };
  if (a.weight.layout == Layout::kPanels)
    each_token([&](float* out, int32_t id) { unpack_row(out, a.weight, id); });
  else
    each_token([&](float* out, int32_t id) { load_row(stored, out, a.weight, id * a.weight.stride(0), D); });
}

/// Tasks are stripes of columns: tokens that share an id are then added in order by one task.
template <const vec::EmbeddingKernels& kernels>
void bwd(ExecContext& ctx, const EmbeddingBwd& a, std::span<std::byte>) {
  check_ids("embedding_bwd", a.ids, a.dweight.dim(0));
  constexpr int64_t kStripe = 64;
  const Rows<float> dweight(a.dweight), dy(a.dy);
  const Rows<int32_t> ids(a.ids);
  parallel_for(*ctx.pool, a.dy.dim(1), kStripe, [&](int64_t begin, int64_t end) {
    for (int64_t t = 0; t < a.dy.dim(0); ++t)
      kernels.add(dweight[*ids[t]] + begin, dy[t] + begin, end - begin);
  });
}

}  // namespace

std::vector<Impl<EmbeddingFwd>> embedding_fwd_impls() {
  return isa_impls<EmbeddingFwd>(fwd<vec::avx512::stored_rows>, fwd<vec::avx2::stored_rows>,
                                 fwd<stored_rows_ref>);
}

std::vector<Impl<EmbeddingBwd>> embedding_bwd_impls() {
  return isa_impls<EmbeddingBwd>(bwd<vec::avx512::embedding>, bwd<vec::avx2::embedding>, bwd<kRef>);
}

}  // namespace moge::ops::cpu
