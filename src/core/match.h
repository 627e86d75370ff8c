// Shape contracts in readable lines (mini-sglang's TensorMatcher): symbols take their value at first use and
// must agree afterwards; errors name the op, the tensor and the dimension.
//
//   Dim T("T"), D("D");
//   match("rmsnorm_fwd", "x", a.x, {T, D}, DType::kF32);
//   match("rmsnorm_fwd", "weight", a.weight, {D}, DType::kF32);
#pragma once
#include <functional>
#include <initializer_list>
#include <optional>

#include "core/tensor.h"

namespace moge {

class Dim {
 public:
  explicit Dim(const char* name) : name_(name) {}
  Dim(const char* name, int64_t value) : name_(name), value_(value) {}
  int64_t value() const { return value_.value(); }
  // NOLINTNEXTLINE(google-explicit-constructor)
  operator int64_t() const { return value_.value(); }

 private:
  friend void match(const char*, const char*, const Tensor&,
                    std::initializer_list<std::reference_wrapper<Dim>>, std::initializer_list<DType>);
  const char* name_;
  std::optional<int64_t> value_;
};

/// Throws ShapeError unless the tensor has these dimensions, one of these dtypes, and a contiguous last
/// dimension (packed weights pass; ops that don't take them refuse in supports()).
void match(const char* op, const char* name, const Tensor& tensor,
           std::initializer_list<std::reference_wrapper<Dim>> dims, std::initializer_list<DType> dtypes);

inline void match(const char* op, const char* name, const Tensor& tensor,
                  std::initializer_list<std::reference_wrapper<Dim>> dims, DType dtype) {
  match(op, name, tensor, dims, {dtype});
}

/// Host sizes are int64; kernels index with int32 where they can. Throws ShapeError when the value won't fit.
int32_t narrow(int64_t value, const char* what);

}  // namespace moge
