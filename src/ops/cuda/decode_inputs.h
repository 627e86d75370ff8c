// The CUDA implementations of ops/decode_inputs.h.
#pragma once
#include "ops/decode_inputs.h"

namespace moge::ops::cuda {

std::vector<Impl<DecodeInputs>> decode_inputs_impls();

}  // namespace moge::ops::cuda
