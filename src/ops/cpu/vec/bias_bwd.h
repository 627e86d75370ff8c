// Column sums.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

/// dbias[j] += sum over r of dy[r, j], rows in order; j < n, rows dy_stride apart.
using AddRows = void(float* dbias, const float* dy, int64_t dy_stride, int64_t rows, int64_t n);
namespace avx2 {
AddRows add_rows;
}
namespace avx512 {
AddRows add_rows;
}

}  // namespace moge::ops::cpu::vec
