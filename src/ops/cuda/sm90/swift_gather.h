// Rows of activations in the order of quant_matmul's result.
#pragma once
#include "ops/quant_matmul.h"

namespace moge::ops::cuda {

/// to[r] = a[row_ids[r]] for all rows of c; [R, K] without gaps. K has a multiple of 16 bytes.
void gather_rows(const ExecContext& ctx, const QuantMatmul& args, void* to);

}  // namespace moge::ops::cuda
