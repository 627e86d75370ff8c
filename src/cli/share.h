// Files that come with the program: configs, and what report pages are put together from.
#pragma once
#include <filesystem>

namespace moge::cli {

/// share/moge beside the program's bin folder, wherever that was moved; the build tree is laid out the same.
std::filesystem::path share_folder();

}  // namespace moge::cli
