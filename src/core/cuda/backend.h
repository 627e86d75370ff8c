// The Backend of one NVIDIA GPU.
#pragma once
#include <memory>

#include "core/backend.h"

namespace moge::cuda {

/// Makes the device of this index current for the process. Throws DeviceError: no device, a driver older than
/// the runtime that we are built with, not compute capability 9.0.
std::unique_ptr<Backend> open_backend(int index);

}  // namespace moge::cuda
