#include "cli/model_path.h"

#include <algorithm>
#include <vector>

#include "cli/config_path.h"
#include "core/error.h"
#include "core/nearest.h"

namespace fs = std::filesystem;

namespace moge::cli {

namespace {

/// A link that leads nowhere counts: who opens it says so.
bool has_any(const fs::path& dir, std::initializer_list<const char*> files) {
  std::error_code ignored;
  return std::any_of(files.begin(), files.end(),
                     [&](const char* f) { return fs::exists(fs::symlink_status(dir / f, ignored)); });
}

}  // namespace

fs::path find_model(const std::string& model) {
  check<FileError>(!model.empty(), "expected a model's directory or the name of a config, got ''");
  std::error_code ignored;
  if (fs::is_directory(model, ignored)) return model;
  check<FileError>(!fs::exists(model, ignored), model, ": expected a directory with a config.json");
  const bool is_name = model.find('/') == std::string::npos && model != "..";
  const std::vector<fs::path> folders = config_folders("models");
  for (const fs::path& folder : folders)
    if (is_name && fs::is_directory(folder / model, ignored)) return folder / model;
  throw FileError(str(model, ": neither a directory nor the name of a config in ", folders.back().string(),
                      is_name ? did_you_mean_one_of(model, config_names("models")) : ""));
}

bool has_weights(const fs::path& model_dir) {
  return has_any(model_dir, {"model.safetensors", "model.safetensors.index.json"});
}

bool has_tokenizer(const fs::path& model_dir) {
  return has_any(model_dir, {"tokenizer.json", "tokenizer.model"});
}

}  // namespace moge::cli
