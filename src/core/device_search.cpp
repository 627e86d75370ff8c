#include "core/device_search.h"

namespace moge {

std::string cuda_version_text(int version) {
  return str(version / 1000, ".", version % 1000 / 10);
}

std::string device_refusal(const DeviceSearch& found) {
  if (found.driver_version == 0) return "no NVIDIA driver here: CUDA finds no libcuda.so.1";
  if (found.driver_too_old)
    return str("the NVIDIA driver supports CUDA ", cuda_version_text(found.driver_version),
               ": expected at least ", cuda_version_text(found.runtime_version));
  if (found.index < 0 || found.index >= found.count)
    return str("GPU ", found.index, ": this machine has ", found.count);
  if (found.gpu && found.gpu->capability != "9.0")
    return str("GPU ", found.index, ", ", found.gpu->name, ": compute capability ", found.gpu->capability,
               "; the kernels are for Hopper, 9.0");
  return "";
}

}  // namespace moge
