// The matmul family in plain loops: what the fast paths are tested against. Sums are kept in double, so the
// reference is the exact value up to one rounding (plus that of bias and add).
#include "core/thread_pool.h"
#include "ops/cpu/element.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_panels.h"

namespace moge::ops::cpu {

namespace {

/// Rows of [R, D] or, through row_ids, of [T, D], f32 or bf16, in the product's precision.
class Operand {
 public:
  Operand(const Tensor& t, const Tensor& row_ids, DType compute)
      : t_(t), ids_(row_ids ? row_ids.ptr<int32_t>() : nullptr), round_(compute == DType::kBF16) {}
  double at(int64_t r, int64_t i) const {
    const float x = load_element(t_, (ids_ ? ids_[r] : r) * t_.stride(0) + i);
    return round_ ? to_f32(to_bf16(x)) : x;
  }

 private:
  const Tensor& t_;
  const int32_t* ids_;
  bool round_;
};

/// Weight [N, K] or [G, N, K], f32 or bf16, strided or packed.
class Weight {
 public:
  explicit Weight(const Tensor& w)
      : w_(w),
        f32_(w.dtype == DType::kF32 ? w.ptr<float>() : nullptr),
        bf16_(w.dtype == DType::kBF16 ? w.ptr<BF16>() : nullptr),
        N_(w.dim(-2)),
        K_(w.dim(-1)),
        group_stride_(w.shape.ndim() == 3 ? w.stride(0) : 0) {}
  double at(int64_t g, int64_t n, int64_t k) const {
    const int64_t i = g * group_stride_ + (w_.layout == Layout::kPanels ? packed_index(n, k, N_, K_, w_.dtype)
                                                                        : n * w_.stride(-2) + k);
    return bf16_ ? to_f32(bf16_[i]) : f32_[i];
  }

 private:
  const Tensor& w_;
  const float* f32_;
  const BF16* bf16_;
  int64_t N_, K_, group_stride_;
};

/// fn(g, r) for each row r of each group g, on all threads.
template <class Fn>
void for_each_row(ExecContext& ctx, const Groups& groups, const Fn& fn) {
  for (int64_t g = 0; g < groups.count(); ++g)
    parallel_for(*ctx.pool, groups.end(g) - groups.begin(g), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) fn(g, groups.begin(g) + i);
    });
}

}  // namespace

void matmul_nt_ref(ExecContext& ctx, const MatmulNT& a, std::span<std::byte>) {
  const Groups groups("matmul_nt", a.offsets, a.c.dim(0));
  const Operand rows(a.a, a.row_ids, a.w.dtype);
  const Weight w(a.w);
  const int64_t N = a.w.dim(-2), K = a.w.dim(-1);
  for_each_row(ctx, groups, [&](int64_t g, int64_t r) {
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += rows.at(r, k) * w.at(g, n, k);
      if (a.bias) sum += a.bias.ptr<float>()[n];
      if (a.add) sum += a.add.ptr<float>()[r * a.add.stride(0) + n];
      a.c.ptr<float>()[r * a.c.stride(0) + n] = static_cast<float>(sum);
    }
  });
}

void matmul_nn_ref(ExecContext& ctx, const MatmulNN& a, std::span<std::byte>) {
  const Groups groups("matmul_nn", a.offsets, a.c.dim(0));
  const Operand rows(a.a, a.row_ids, a.w.dtype);
  const Weight w(a.w);
  const int64_t N = a.w.dim(-2), K = a.w.dim(-1);
  for_each_row(ctx, groups, [&](int64_t g, int64_t r) {
    for (int64_t k = 0; k < K; ++k) {
      double sum = 0;
      for (int64_t n = 0; n < N; ++n) sum += rows.at(r, n) * w.at(g, n, k);
      if (a.add) sum += a.add.ptr<float>()[r * a.add.stride(0) + k];
      a.c.ptr<float>()[r * a.c.stride(0) + k] = static_cast<float>(sum);
    }
  });
}

void matmul_tn_ref(ExecContext& ctx, const MatmulTN& t, std::span<std::byte>) {
  const Groups groups("matmul_tn", t.offsets, t.a_row_ids ? t.a_row_ids.dim(0) : t.a.dim(0));
  const Operand a(t.a, t.a_row_ids, t.compute), b(t.b, t.b_row_ids, t.compute);
  const int64_t N = t.c.dim(-2), K = t.c.dim(-1);
  const int64_t group_stride = t.offsets ? t.c.stride(0) : 0;
  parallel_for(*ctx.pool, groups.count() * N, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t g = i / N, n = i % N;
      float* c = t.c.ptr<float>() + g * group_stride + n * t.c.stride(-2);
      for (int64_t k = 0; k < K; ++k) {
        double sum = c[k];
        for (int64_t r = groups.begin(g); r < groups.end(g); ++r) sum += a.at(r, n) * b.at(r, k);
        c[k] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace moge::ops::cpu
