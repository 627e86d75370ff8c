// The CPU implementation of ops/decode_inputs.h.
#pragma once
#include "ops/decode_inputs.h"

namespace moge::ops::cpu {

std::vector<Impl<DecodeInputs>> decode_inputs_impls();

}  // namespace moge::ops::cpu
