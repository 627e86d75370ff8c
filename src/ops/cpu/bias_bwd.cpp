// bias_bwd: column sums of dy, bound by bandwidth. A task owns columns, so each sum runs over the rows in
// order.
#include "ops/cpu/vec/bias_bwd.h"

#include "ops/cpu/isa.h"
#include "ops/cpu/matmul.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kColumns = 64;

void add_rows_ref(float* dbias, const float* dy, int64_t dy_stride, int64_t rows, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    double sum = dbias[j];
    for (int64_t r = 0; r < rows; ++r) sum += dy[r * dy_stride + j];
    dbias[j] = static_cast<float>(sum);
  }
}

template <vec::AddRows& add_rows>
void run(ExecContext& ctx, const BiasBwd& a, std::span<std::byte>) {
  parallel_for(*ctx.pool, a.dbias.dim(0), kColumns, [&](int64_t begin, int64_t end) {
    add_rows(a.dbias.ptr<float>() + begin, a.dy.ptr<float>() + begin, a.dy.stride(0), a.dy.dim(0),
             end - begin);
  });
}

}  // namespace

std::vector<Impl<BiasBwd>> bias_bwd_impls() {
  return isa_impls<BiasBwd>(run<vec::avx512::add_rows>, run<vec::avx2::add_rows>, run<add_rows_ref>);
}

}  // namespace moge::ops::cpu
