// Tensor maps for the bulk copy engine (CUDA driver API, "Tensor Map Object Management").
#pragma once
#include <cuda.h>

#include <cstdint>

#include "core/tensor.h"

namespace moge::ops::cuda {

/// Bytes that a miss brings to the L2.
enum class L2Fetch { k128, k256 };

/// Boxes of `box_rows` x `box_columns` elements of a row-major matrix whose rows are `row_stride` elements
/// apart (0: without a gap). A box's row has 64 or 128 bytes, which is also the span of its swizzle in shared
/// memory. Throws DeviceError naming `op`.
CUtensorMap matrix_map(const char* op, const void* data, DType dtype, int64_t rows, int64_t columns,
                       int box_rows, int box_columns, L2Fetch fetch = L2Fetch::k256, int64_t row_stride = 0);

/// Boxes of `box_rows` rows of one head, 64 elements wide, of x: [T, H, Dh] bf16 whose strides are multiples
/// of 16 bytes.
CUtensorMap heads_map(const char* op, const Tensor& x, int box_rows);

}  // namespace moge::ops::cuda
