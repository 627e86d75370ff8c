// generation_config.json: how a model's makers want it sampled.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace moge::cli {

/// Members are the file's keys; absent ones are empty.
struct GenerationConfig {
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::vector<int32_t> eos_token_id;
};

/// The ranges of temperature and repetition_penalty, here and as flags.
inline constexpr double kMaxTemperature = 100;
inline constexpr double kMinRepetitionPenalty = 0.01;
inline constexpr double kMaxRepetitionPenalty = 100;

/// Empty when the directory has no such file. FileError when it is broken, or has a value that the flag of
/// its name would refuse or an id that is not below `vocab_size`.
GenerationConfig load_generation_config(const std::filesystem::path& model_dir, int64_t vocab_size);

}  // namespace moge::cli
