#include "core/tensor.h"

#include <ostream>

namespace moge {

Shape::Shape(std::initializer_list<int64_t> dims) : ndim_(static_cast<int>(dims.size())) {
  check<ShapeError>(ndim_ <= kMaxDims, "a shape has at most ", kMaxDims, " dimensions, got ", ndim_);
  int i = 0;
  for (const int64_t d : dims) {
    check<ShapeError>(d >= 0, "dimension ", i, " of a shape is negative: ", d);
    dims_[i++] = d;
  }
}

int64_t Shape::numel() const {
  int64_t n = ndim_ == 0 ? 0 : 1;
  for (int i = 0; i < ndim_; ++i) {
    check<ShapeError>(!__builtin_mul_overflow(n, dims_[i], &n), "shape ", *this, " overflows 64 bits");
  }
  return n;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < ndim_; ++i) s += moge::str(i ? ", " : "", dims_[i]);
  return s + "]";
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  return out << shape.str();
}

Tensor::Tensor(void* data, DType dtype, Shape shape, Device device)
    : data(data), dtype(dtype), device(device), shape(shape) {
  int64_t stride = 1;
  for (int i = shape.ndim() - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= shape[i];
  }
}

bool Tensor::is_contiguous() const {
  if (layout != Layout::kStrided) return false;
  int64_t expected = 1;
  for (int i = shape.ndim() - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

Tensor Tensor::operator[](int64_t i) const {
  dcheck(shape.ndim() >= 2 && i >= 0 && i < shape[0], "index ", i, " of ", shape);
  Tensor t = *this;
  // Without data the tensor is a description, and so are its parts.
  if (data) t.data = static_cast<std::byte*>(data) + i * strides[0] * size_of(dtype);
  switch (shape.ndim()) {
    case 2:
      t.shape = {shape[1]};
      break;
    case 3:
      t.shape = {shape[1], shape[2]};
      break;
    default:
      t.shape = {shape[1], shape[2], shape[3]};
      break;
  }
  for (int d = 0; d + 1 < shape.ndim(); ++d) t.strides[d] = strides[d + 1];
  t.strides[shape.ndim() - 1] = 0;
  return t;
}

Tensor Tensor::slice(int axis, int64_t begin, int64_t end) const {
  dcheck(
      layout == Layout::kStrided && axis < shape.ndim() && begin >= 0 && begin <= end && end <= shape[axis],
      "slice [", begin, ", ", end, ") of axis ", axis, " of ", shape);
  std::array<int64_t, Shape::kMaxDims> d{};
  for (int i = 0; i < shape.ndim(); ++i) d[i] = i == axis ? end - begin : shape[i];
  Tensor t = *this;
  if (data) t.data = static_cast<std::byte*>(data) + begin * strides[axis] * size_of(dtype);
  switch (shape.ndim()) {
    case 1:
      t.shape = {d[0]};
      break;
    case 2:
      t.shape = {d[0], d[1]};
      break;
    case 3:
      t.shape = {d[0], d[1], d[2]};
      break;
    default:
      t.shape = {d[0], d[1], d[2], d[3]};
      break;
  }
  return t;
}

Tensor Tensor::view(Shape to) const {
  dcheck(is_contiguous() && to.numel() == numel(), "view ", shape, " as ", to);
  return {data, dtype, to, device};
}

std::string Tensor::str() const {
  return moge::str(name_of(dtype), shape.str(), layout == Layout::kPanels ? " (packed)" : "");
}

}  // namespace moge
