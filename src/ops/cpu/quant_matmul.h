// The CPU implementations of ops/quant_matmul.h.
#pragma once
#include "ops/quant_matmul.h"

namespace moge::ops::cpu {

std::vector<Impl<QuantMatmul>> quant_matmul_impls();

}  // namespace moge::ops::cpu
