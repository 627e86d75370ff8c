// A non-owning, strided view of up to four dimensions. Passed by value, like a pointer; the memory belongs to
// a Buffer, an Arena, a Workspace or a mapped file.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/dtype.h"

namespace moge {

enum class DeviceKind : uint8_t { kCpu, kCuda };
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

/// How the elements of the last two dimensions [N, K] lie in memory.
enum class Layout : uint8_t {
  kStrided,  ///< by strides
  kPanels,   ///< packed for the CPU matmul (ops/matmul.h, pack_weight): opaque to everyone else
};

class Shape {
 public:
  static constexpr int kMaxDims = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  int ndim() const { return ndim_; }
  int64_t operator[](int i) const { return dims_[i < 0 ? ndim_ + i : i]; }
  int64_t numel() const;
  bool operator==(const Shape&) const = default;
  std::string str() const;  ///< "[64, 256]"

 private:
  std::array<int64_t, kMaxDims> dims_{};
  int ndim_ = 0;
};
std::ostream& operator<<(std::ostream& out, const Shape& shape);

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Layout layout = Layout::kStrided;
  Device device;
  Shape shape;
  std::array<int64_t, Shape::kMaxDims> strides{};  ///< in elements

  Tensor() = default;
  /// A contiguous view of `data`.
  Tensor(void* data, DType dtype, Shape shape, Device device = {});

  /// False for an absent optional tensor. A tensor of zero elements is present when it has a shape.
  explicit operator bool() const { return shape.ndim() > 0; }
  int64_t dim(int i) const { return shape[i]; }  ///< negative counts from the end
  int64_t stride(int i) const { return strides[i < 0 ? shape.ndim() + i : i]; }
  int64_t numel() const { return shape.numel(); }
  int64_t bytes() const { return numel() * size_of(dtype); }  ///< of the elements, not of the span
  bool is_contiguous() const;

  /// Typed access; throws ShapeError when T is not the dtype.
  template <class T>
  T* ptr() const {
    if (dtype != dtype_of<T>())
      throw ShapeError(moge::str("tensor ", str(), ": expected dtype ", name_of(dtype_of<T>())));
    return static_cast<T*>(data);
  }

  /// The view of index i of dimension 0, one dimension fewer.
  Tensor operator[](int64_t i) const;
  /// Rows [begin, end) of dimension `axis`.
  Tensor slice(int axis, int64_t begin, int64_t end) const;
  /// Another shape over the same contiguous elements.
  Tensor view(Shape to) const;
  std::string str() const;  ///< "f32[64, 256]"
};

/// The elements of a contiguous CPU tensor.
template <class T>
std::span<T> elements(const Tensor& t) {
  dcheck(t.is_contiguous(), "elements() of a strided tensor ", t.str());
  return {t.ptr<T>(), static_cast<size_t>(t.numel())};
}

}  // namespace moge
