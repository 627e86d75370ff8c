#include "core/match.h"

#include <limits>

namespace moge {

void match(const char* op, const char* name, const Tensor& tensor,
           std::initializer_list<std::reference_wrapper<Dim>> dims, std::initializer_list<DType> dtypes) {
  // Messages are built only on failure: this runs several times in every op of every decode step.
  const auto fail = [&](const auto&... why) {
    std::string expected;
    for (const DType d : dtypes) expected += str(expected.empty() ? "" : " or ", name_of(d));
    expected += "[";
    bool first = true;
    for (const Dim& d : dims) {
      expected += str(first ? "" : ", ", d.name_);
      if (d.value_) expected += str("=", *d.value_);
      first = false;
    }
    throw ShapeError(str(op, ": ", name, ": expected ", expected, "], got ", tensor.str(), why...));
  };
  if (tensor.shape.ndim() != static_cast<int>(dims.size())) fail(" (number of dimensions)");
  bool dtype_ok = false;
  for (const DType d : dtypes) dtype_ok = dtype_ok || d == tensor.dtype;
  if (!dtype_ok) fail(" (dtype)");
  int i = 0;
  for (Dim& d : dims) {
    if (!d.value_) d.value_ = tensor.dim(i);
    if (*d.value_ != tensor.dim(i)) fail(" (dimension ", d.name_, ")");
    ++i;
  }
  if (tensor.layout == Layout::kStrided && tensor.dim(-1) > 1 && tensor.stride(-1) != 1)
    fail(" (last dimension not contiguous)");
}

int32_t narrow(int64_t value, const char* what) {
  check<ShapeError>(value >= 0 && value <= std::numeric_limits<int32_t>::max(), what,
                    " does not fit 32 bits: ", value);
  return static_cast<int32_t>(value);
}

}  // namespace moge
