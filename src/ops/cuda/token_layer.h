// ops/token_layer.h on the GPU.
#pragma once
#include <vector>

#include "ops/token_layer.h"

namespace moge::ops::cuda {

std::vector<Impl<TokenLayer>> token_layer_impls();

}  // namespace moge::ops::cuda
