// A training run as one TOML file (configs/train/*.toml has commented examples). Unknown keys are errors.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "train/schedule.h"
#include "train/train_step.h"

namespace moge::train {

struct TrainConfig {
  std::filesystem::path model;      ///< a config.json or its directory: fresh weights
  std::filesystem::path init_from;  ///< or a checkpoint directory to start from
  DType dtype = DType::kBF16;       ///< of weights and matmul inputs; masters and sums are fp32
  uint64_t seed = 1;

  std::filesystem::path tokenizer;          ///< directory
  std::vector<std::filesystem::path> data;  ///< a packed corpus, or text files and directories to pack
  int64_t holdout_modulus = 50;             ///< one document in so many is held out for evaluation

  std::vector<Phase> phases;
  int64_t micro_batch_tokens = 0;  ///< 0: the whole batch at once

  AdamWConfig optimizer;
  LossConfig loss;
  double spike_sigmas =
      0;  ///< skip an update whose loss is so many deviations above its running mean; 0: off

  int64_t eval_every = 0;  ///< steps; 0: only at the end
  int64_t eval_tokens = 1 << 16;
  int64_t checkpoint_every = 0;  ///< steps; 0: only at the end
  int64_t keep_checkpoints = 2;  ///< older ones are removed
  std::filesystem::path output;

  /// The file's text, stored with the checkpoints: a resumed run must say the same.
  std::string text;
};

/// The first key in which two configurations' texts differ, and both values, as in "/loss/z_coef: saved 0.1,
/// now 0.2"; "" for none. Comments, spaces and the order of keys do not count.
std::string config_difference(const std::string& saved, const std::string& now);

/// Paths inside are relative to the working directory. Throws FileError naming the key.
TrainConfig load_train_config(const std::filesystem::path& path);

}  // namespace moge::train
