// ops/quant_matmul.h on the GPU.
#pragma once
#include <vector>

#include "ops/quant_matmul.h"

namespace moge::ops::cuda {

/// SwiftGMM (sm90/swift_gmm.cuh), then one thread per element for the shapes that it refuses.
std::vector<Impl<QuantMatmul>> quant_matmul_impls();

}  // namespace moge::ops::cuda
