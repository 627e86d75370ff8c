// Whether we can use the GPU that a search found; apart from the search, so that it can be tried without a
// GPU.
#pragma once
#include <string>

#include "core/backend.h"

namespace moge {

/// What a search for GPUs found.
struct DeviceSearch {
  bool driver_too_old = false;  ///< for the runtime that we are built with; also when there is no driver
  int driver_version = 0;       ///< the newest CUDA that the driver supports: 13020 is 13.2; 0: no driver
  int runtime_version = 0;
  int index = 0, count = 0;         ///< the GPU asked for, of so many
  const DeviceInfo* gpu = nullptr;  ///< that GPU, once looked at
};
/// Why the GPU cannot be used, as far as the search has come, or "".
std::string device_refusal(const DeviceSearch& found);
/// "13.2" of CUDA's 13020.
std::string cuda_version_text(int version);

}  // namespace moge
