// Rows of two-dimensional tensors, and how many of them make a task of the thread pool.
#pragma once
#include <algorithm>

#include "core/error.h"
#include "core/tensor.h"

namespace moge::ops::cpu {

/// rows[r] is the start of row r (of element r, for one dimension); null when the tensor is absent.
template <class T>
class Rows {
 public:
  explicit Rows(const Tensor& t) : base_(t ? t.ptr<T>() : nullptr), stride_(t ? t.stride(0) : 0) {}
  T* operator[](int64_t r) const { return base_ ? base_ + r * stride_ : nullptr; }
  explicit operator bool() const { return base_ != nullptr; }
  int64_t stride() const { return stride_; }

 private:
  T* base_;
  int64_t stride_;
};

/// Throws ShapeError unless element [t, k] of an op's tensor of indices is one of 0..end-1.
inline void check_index(const char* op, const char* tensor, int64_t t, int64_t k, int32_t index,
                        int64_t end) {
  check<ShapeError>(index >= 0 && index < end, op, ": ", tensor, "[", t, ", ", k, "]: expected 0..", end - 1,
                    ", got ", index);
}
/// All n of row t.
inline void check_indices(const char* op, const char* tensor, const int32_t* row, int64_t t, int64_t n,
                          int64_t end) {
  for (int64_t k = 0; k < n; ++k) check_index(op, tensor, t, k, row[k], end);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// About 16k elements a task: some microseconds of work. Sums over rows are cut at the same places, so this
/// must not depend on the thread count.
constexpr int64_t rows_per_task(int64_t row_elements) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(row_elements, 1));
}
constexpr int64_t num_row_tasks(int64_t rows, int64_t row_elements) {
  return ceil_div(rows, rows_per_task(row_elements));
}

}  // namespace moge::ops::cpu
