// The configs that come with the program: folders named like configs/KIND.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace moge::cli {

/// Folders of `kind` ("models", "hardware", "sim"): below MOGE_CONFIGS, then share_folder()/configs. The
/// first to have a name wins.
std::vector<std::filesystem::path> config_folders(const std::string& kind);
/// The names of what is in these folders, without `extension`, sorted.
std::vector<std::string> config_names(const std::string& kind, const std::string& extension = "");
/// `name` itself if it is a file, else configs/KIND/NAME.toml. FileError names the nearest.
std::filesystem::path find_config_file(const std::string& kind, const std::string& name);

}  // namespace moge::cli
