// Copies between tensors of any strides, converting f32, bf16 and f16: how weights get from a mapped file
// into the model's memory and back.
#pragma once
#include <cstdint>
#include <optional>

#include "core/tensor.h"
#include "core/thread_pool.h"

namespace moge::io {

/// dst = src. Same shape; same dtype, or both of f32, bf16, f16 (rounded to nearest even). CPU tensors that
/// do not overlap. Throws ShapeError. With a pool the work is split, to the same result.
void copy_convert(const Tensor& dst, const Tensor& src, ThreadPool* pool = nullptr);

/// The row-major index of the first NaN or infinity; nothing for integer tensors. Contiguous tensors only.
std::optional<int64_t> find_nonfinite(const Tensor& tensor);

}  // namespace moge::io
