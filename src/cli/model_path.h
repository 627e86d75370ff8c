// Where MODEL is: a Hugging Face directory, or the name of a config that comes with the program.
#pragma once
#include <filesystem>
#include <string>

namespace moge::cli {

/// The directory of a model: `model` itself if that is one, else configs/models/`model` below MOGE_CONFIGS or
/// share/moge (beside the program's bin folder, wherever that was moved). FileError names the nearest config.
std::filesystem::path find_model(const std::string& model);

/// True for a directory with weights, not only a config.
bool has_weights(const std::filesystem::path& model_dir);
/// True for a directory with a tokenizer.
bool has_tokenizer(const std::filesystem::path& model_dir);

}  // namespace moge::cli
