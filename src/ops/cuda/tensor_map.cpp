#include "ops/cuda/tensor_map.h"

#include "core/cuda/check.h"

namespace moge::ops::cuda {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, found at run time: the plugin does not link libcuda.
Encode encode_function() {
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    moge::cuda::check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                            cudaEnableDefault, &found),
                           "looking up cuTensorMapEncodeTiled");
    check<DeviceError>(found == cudaDriverEntryPointSuccess, "the driver lacks cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(function);
  }();
  return encode;
}

}  // namespace

CUtensorMap matrix_map(const char* op, const void* data, DType dtype, int64_t rows, int64_t columns,
                       int box_rows, int box_columns, L2Fetch fetch, int64_t row_stride) {
  const auto row_bytes = static_cast<cuuint64_t>((row_stride > 0 ? row_stride : columns) * size_of(dtype));
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  CUtensorMap map{};
  const CUresult result = encode_function()(
      &map, size_of(dtype) == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2,
      const_cast<void*>(data), sizes, &row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      box_columns * size_of(dtype) == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
      fetch == L2Fetch::k128 ? CU_TENSOR_MAP_L2_PROMOTION_L2_128B : CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check<DeviceError>(result == CUDA_SUCCESS, op, ": cannot map a matrix of ", rows, " x ", columns, " ",
                     name_of(dtype), " in boxes of ", box_rows, " x ", box_columns, " (CUresult ",
                     static_cast<int>(result), ")");
  return map;
}

CUtensorMap heads_map(const char* op, const Tensor& x, int box_rows) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(x.dim(2)), static_cast<cuuint64_t>(x.dim(1)),
                              static_cast<cuuint64_t>(x.dim(0))};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(x.stride(1) * 2),
                                static_cast<cuuint64_t>(x.stride(0) * 2)};
  const cuuint32_t box[] = {64, 1, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map{};
  const CUresult result =
      encode_function()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, x.data, sizes, strides, box, steps,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check<DeviceError>(result == CUDA_SUCCESS, op, ": cannot map ", x.str(), " in boxes of ", box_rows,
                     " rows (CUresult ", static_cast<int>(result), ")");
  return map;
}

}  // namespace moge::ops::cuda
