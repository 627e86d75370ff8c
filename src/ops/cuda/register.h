// The GPU kernels' entries in the op tables.
#pragma once

namespace moge::ops::cuda {

/// Puts every CUDA implementation in front of its op's table. Once per process.
void register_ops();

}  // namespace moge::ops::cuda
