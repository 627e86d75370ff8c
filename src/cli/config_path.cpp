#include "cli/config_path.h"

#include <algorithm>
#include <cstdlib>

#include "cli/share.h"
#include "core/error.h"
#include "core/nearest.h"

namespace fs = std::filesystem;

namespace moge::cli {

std::vector<fs::path> config_folders(const std::string& kind) {
  std::vector<fs::path> folders;
  if (const char* env = std::getenv("MOGE_CONFIGS"); env && *env != '\0')
    folders.push_back(fs::path(env) / kind);
  folders.push_back(share_folder() / "configs" / kind);
  return folders;
}

std::vector<std::string> config_names(const std::string& kind, const std::string& extension) {
  std::vector<std::string> names;
  for (const fs::path& folder : config_folders(kind)) {
    std::error_code absent;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, absent)) {
      const std::string name = entry.path().filename();
      if (name.ends_with(extension)) names.push_back(name.substr(0, name.size() - extension.size()));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path find_config_file(const std::string& kind, const std::string& name) {
  constexpr const char* kExtension = ".toml";
  std::error_code ignored;
  if (fs::is_regular_file(name, ignored)) return name;
  const std::vector<fs::path> folders = config_folders(kind);
  if (name.find('/') == std::string::npos)
    for (const fs::path& folder : folders)
      if (fs::is_regular_file(folder / (name + kExtension), ignored)) return folder / (name + kExtension);
  throw FileError(str(name, ": neither a file nor the name of one in ", folders.back().string(),
                      did_you_mean_one_of(name, config_names(kind, kExtension))));
}

}  // namespace moge::cli
