// SwiftGMM's tiles by measurement: what `moge tune` found on this machine, before what it found on ours.
#pragma once
#include <string>

#include "ops/tile_profile.h"

namespace moge::ops::cuda {

/// For a device by its name. A broken cache file is a warning, and counts for nothing.
TileProfile swift_profile(const std::string& device);

}  // namespace moge::ops::cuda
