#include "io/copy_convert.h"

#include <cstring>

#include "core/error.h"

namespace moge::io {
namespace {

constexpr int64_t kGrainElements = int64_t{1} << 16;

template <class To, class From>
To convert(From x) {
  float f = 0;
  if constexpr (std::is_same_v<From, float>) {
    f = x;
  } else {
    f = to_f32(x);
  }
  if constexpr (std::is_same_v<To, BF16>) {
    return to_bf16(f);
  } else if constexpr (std::is_same_v<To, F16>) {
    return to_f16(f);
  } else {
    return f;
  }
}

/// n elements with strides in elements.
using CopyRow = void (*)(void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t n);

template <class To, class From>
void convert_row(void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t n) {
  auto* d = static_cast<To*>(dst);
  const auto* s = static_cast<const From*>(src);
  if (dst_stride == 1 && src_stride == 1) {
    for (int64_t i = 0; i < n; ++i) d[i] = convert<To>(s[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) d[i * dst_stride] = convert<To>(s[i * src_stride]);
  }
}

template <class T>
void copy_row(void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t n) {
  if (dst_stride == 1 && src_stride == 1) {
    std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(T));
    return;
  }
  auto* d = static_cast<T*>(dst);
  const auto* s = static_cast<const T*>(src);
  for (int64_t i = 0; i < n; ++i) d[i * dst_stride] = s[i * src_stride];
}

CopyRow same_dtype(int64_t element_bytes) {
  switch (element_bytes) {
    case 1:
      return copy_row<uint8_t>;
    case 2:
      return copy_row<uint16_t>;
    case 4:
      return copy_row<uint32_t>;
    default:
      return copy_row<uint64_t>;
  }
}

template <class To>
CopyRow converting_to(DType from) {
  switch (from) {
    case DType::kF32:
      return convert_row<To, float>;
    case DType::kBF16:
      return convert_row<To, BF16>;
    case DType::kF16:
      return convert_row<To, F16>;
    default:
      return nullptr;
  }
}

CopyRow row_function(DType to, DType from) {
  if (to == from) return same_dtype(size_of(to));
  switch (to) {
    case DType::kF32:
      return converting_to<float>(from);
    case DType::kBF16:
      return converting_to<BF16>(from);
    case DType::kF16:
      return converting_to<F16>(from);
    default:
      return nullptr;
  }
}

/// Where row `row` (an index over all dimensions but the last) begins.
std::byte* row_begin(const Tensor& t, int64_t row) {
  int64_t offset = 0;
  for (int d = t.shape.ndim() - 2; d >= 0; --d) {
    offset += row % t.shape[d] * t.strides[d];
    row /= t.shape[d];
  }
  return static_cast<std::byte*>(t.data) + offset * size_of(t.dtype);
}

template <class Fn>
void split(ThreadPool* pool, int64_t n, int64_t grain, const Fn& fn) {
  if (pool != nullptr) {
    parallel_for(*pool, n, grain, fn);
  } else if (n > 0) {
    fn(int64_t{0}, n);
  }
}

template <class T>
std::optional<int64_t> first_with_exponent(const Tensor& tensor, T mask) {
  const auto* bits = static_cast<const T*>(tensor.data);
  const int64_t n = tensor.numel();
  for (int64_t begin = 0; begin < n; begin += kGrainElements) {
    const int64_t end = std::min(n, begin + kGrainElements);
    bool any = false;  // without an early exit the loop vectorises
    for (int64_t i = begin; i < end; ++i) any |= (bits[i] & mask) == mask;
    if (!any) continue;
    for (int64_t i = begin; i < end; ++i) {
      if ((bits[i] & mask) == mask) return i;
    }
  }
  return std::nullopt;
}

}  // namespace

void copy_convert(const Tensor& dst, const Tensor& src, ThreadPool* pool) {
  const CopyRow copy = row_function(dst.dtype, src.dtype);
  check<ShapeError>(dst.shape == src.shape && copy != nullptr && dst.layout == Layout::kStrided &&
                        src.layout == Layout::kStrided && dst.device == Device{} && src.device == Device{},
                    "copy_convert: cannot copy ", src.str(), " to ", dst.str());
  const int64_t n = dst.numel();
  if (n == 0) return;
  if (dst.is_contiguous() && src.is_contiguous()) {
    split(pool, n, kGrainElements, [&](int64_t begin, int64_t end) {
      copy(static_cast<std::byte*>(dst.data) + begin * size_of(dst.dtype), 1,
           static_cast<const std::byte*>(src.data) + begin * size_of(src.dtype), 1, end - begin);
    });
    return;
  }
  const int64_t row_elements = dst.dim(-1);
  split(pool, n / row_elements, std::max<int64_t>(1, kGrainElements / row_elements),
        [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row)
            copy(row_begin(dst, row), dst.stride(-1), row_begin(src, row), src.stride(-1), row_elements);
        });
}

std::optional<int64_t> find_nonfinite(const Tensor& tensor) {
  dcheck(tensor.is_contiguous(), "find_nonfinite of a strided tensor ", tensor.str());
  switch (tensor.dtype) {
    case DType::kF32:
      return first_with_exponent<uint32_t>(tensor, 0x7f800000U);
    case DType::kBF16:
      return first_with_exponent<uint16_t>(tensor, 0x7f80U);
    case DType::kF16:
      return first_with_exponent<uint16_t>(tensor, 0x7c00U);
    case DType::kFP8E4M3:  // has no infinity and one NaN, all ones
      return first_with_exponent<uint8_t>(tensor, 0x7fU);
    default:
      return std::nullopt;
  }
}

}  // namespace moge::io
