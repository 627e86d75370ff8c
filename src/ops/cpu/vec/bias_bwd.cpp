#include "ops/cpu/vec/bias_bwd.h"

#include "ops/cpu/vec/vec.h"

namespace moge::ops::cpu::vec::MOGE_ISA {

void add_rows(float* dbias, const float* dy, int64_t dy_stride, int64_t rows, int64_t n) {
  for_lanes(n, [&](int64_t j, int64_t lanes) {
    F32 sum = load_n(dbias + j, lanes);
    for (int64_t r = 0; r < rows; ++r) sum = sum + load_n(dy + r * dy_stride + j, lanes);
    store_n(dbias + j, sum, lanes);
  });
}

}  // namespace moge::ops::cpu::vec::MOGE_ISA
