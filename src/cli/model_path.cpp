#include "cli/model_path.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "cli/share.h"
#include "core/error.h"
#include "core/nearest.h"

namespace fs = std::filesystem;

namespace moge::cli {

namespace {

/// Folders named like configs/models, the first to have a name wins.
std::vector<fs::path> config_folders() {
  std::vector<fs::path> folders;
  if (const char* env = std::getenv("MOGE_CONFIGS"); env && *env != '\0')
    folders.push_back(fs::path(env) / "models");
  folders.push_back(share_folder() / "configs/models");
  return folders;
}

std::vector<std::string> names_in(const std::vector<fs::path>& folders) {
  std::vector<std::string> names;
  for (const fs::path& folder : folders) {
    std::error_code absent;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, absent))
      names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool has_any(const fs::path& dir, std::initializer_list<const char*> files) {
  std::error_code ignored;
  return std::any_of(files.begin(), files.end(), [&](const char* f) { return fs::exists(dir / f, ignored); });
}

}  // namespace

fs::path find_model(const std::string& model) {
  std::error_code ignored;
  if (fs::is_directory(model, ignored)) return model;
  check<FileError>(!fs::exists(model, ignored), model, ": expected a directory with a config.json");
  const bool is_name = model.find('/') == std::string::npos && model != "..";
  const std::vector<fs::path> folders = config_folders();
  for (const fs::path& folder : folders)
    if (is_name && fs::is_directory(folder / model, ignored)) return folder / model;
  throw FileError(str(model, ": neither a directory nor the name of a config in ", folders.back().string(),
                      is_name ? did_you_mean(model, names_in(folders)) : ""));
}

bool has_weights(const fs::path& model_dir) {
  return has_any(model_dir, {"model.safetensors", "model.safetensors.index.json"});
}

bool has_tokenizer(const fs::path& model_dir) {
  return has_any(model_dir, {"tokenizer.json", "tokenizer.model"});
}

}  // namespace moge::cli
