#include "ops/cuda/sm90/swift_profile.h"

#include "core/error.h"
#include "core/log.h"

namespace moge::ops::cuda {

namespace {

/// Made on an H200 by
///   for t in i8 fp8_e4m3 bf16; do MOGE_CACHE=out moge tune pangu-pro-moe-72b-a16b --dtype $t; done
constexpr const char* kBuiltIn =
#include "ops/cuda/sm90/swift_profile.inc"
    ;

}  // namespace

TileProfile swift_profile(const std::string& device) {
  TileProfile profile = TileProfile::parse(kBuiltIn, "built-in tile profile");
  try {
    profile.replace_by(load_tile_profile(device));
  } catch (const FileError& broken) {
    log_warning(broken.what(), "; the built-in tiles are used (moge tune writes the file anew)");
  }
  return profile;
}

}  // namespace moge::ops::cuda
