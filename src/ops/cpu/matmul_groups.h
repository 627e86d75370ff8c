// Which rows belong to which group, for dense and grouped products alike.
#pragma once
#include <cstddef>

#include "core/error.h"
#include "core/tensor.h"

namespace moge::ops::cpu {

/// Group g owns rows begin(g) .. end(g)-1; a dense product is one group of all rows.
class Groups {
 public:
  /// Throws ShapeError unless the offsets (absent: dense) ascend within 0..rows.
  Groups(const char* op, const Tensor& offsets, int64_t rows)
      : rows_(rows),
        count_(offsets ? offsets.dim(0) - 1 : 1),
        offsets_(offsets ? offsets.ptr<int32_t>() : nullptr) {
    if (!offsets_) return;
    check<ShapeError>(offsets_[0] >= 0 && offsets_[count_] <= rows, op, ": offsets: expected rows 0 to ",
                      rows, ", got ", offsets_[0], " to ", offsets_[count_]);
    for (int64_t g = 0; g < count_; ++g)
      check<ShapeError>(offsets_[g] <= offsets_[g + 1], op, ": offsets: expected ascending, got ",
                        offsets_[g], " before ", offsets_[g + 1], " at group ", g);
  }
  int64_t count() const { return count_; }
  int64_t begin(int64_t g) const { return offsets_ ? offsets_[g] : 0; }
  int64_t end(int64_t g) const { return offsets_ ? offsets_[g + 1] : rows_; }

 private:
  int64_t rows_;
  int64_t count_;
  const int32_t* offsets_;
};

/// Rows of [R, D] or, through row_ids, of [T, D], in elements of any size.
struct GatheredRows {
  GatheredRows(const Tensor& t, const Tensor& row_ids)
      : base(static_cast<const std::byte*>(t.data)),
        element(size_of(t.dtype)),
        stride(t.stride(0) * element),
        ids(row_ids ? row_ids.ptr<int32_t>() : nullptr) {}
  const std::byte* at(int64_t r, int64_t col) const {
    return base + (ids ? ids[r] : r) * stride + col * element;
  }
  const std::byte* base;
  int64_t element;  ///< bytes
  int64_t stride;   ///< bytes
  const int32_t* ids;
};

}  // namespace moge::ops::cpu
