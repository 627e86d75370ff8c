// ops/quantize.h on the GPU.
#pragma once
#include <vector>

#include "ops/quantize.h"

namespace moge::ops::cuda {

std::vector<Impl<QuantizeRows>> quantize_rows_impls();

}  // namespace moge::ops::cuda
