#include "core/match.h"

#include <limits>

namespace moge {

void match(const char* op, const char* name, const Tensor& tensor,
           std::initializer_list<std::reference_wrapper<Dim>> dims, std::initializer_list<DType> dtypes) {
  const auto expected = [&] {
    std::string s;
    for (const DType d : dtypes) s += str(s.empty() ? "" : " or ", name_of(d));
    s += "[";
    bool first = true;
    for (const Dim& d : dims) {
      s += str(first ? "" : ", ", d.name_);
      if (d.value_) s += str("=", *d.value_);
      first = false;
    }
    return s + "]";
  };
  const auto require = [&](bool ok, const char* why) {
    check<ShapeError>(ok, op, ": ", name, ": expected ", expected(), ", got ", tensor.str(), why);
  };
  require(tensor.shape.ndim() == static_cast<int>(dims.size()), " (number of dimensions)");
  bool dtype_ok = false;
  for (const DType d : dtypes) dtype_ok = dtype_ok || d == tensor.dtype;
  require(dtype_ok, " (dtype)");
  int i = 0;
  for (Dim& d : dims) {
    if (!d.value_) d.value_ = tensor.dim(i);
    require(*d.value_ == tensor.dim(i), str(" (dimension ", d.name_, ")").c_str());
    ++i;
  }
  require(tensor.layout == Layout::kPanels || tensor.dim(-1) <= 1 || tensor.stride(-1) == 1,
          " (last dimension not contiguous)");
}

int32_t narrow(int64_t value, const char* what) {
  check<ShapeError>(value >= 0 && value <= std::numeric_limits<int32_t>::max(), what,
                    " does not fit 32 bits: ", value);
  return static_cast<int32_t>(value);
}

}  // namespace moge
