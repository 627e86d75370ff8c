// A training checkpoint is a Hugging Face directory (loadable by anything that reads the weights) with two
// files more: optimizer.safetensors (moments and fp32 masters) and trainer.json (where the run stands). It
// appears under its name complete or not at all, and every tensor carries a checksum that resuming verifies.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/spike_guard.h"
#include "train/train_step.h"

namespace moge::train {

struct TrainerState {
  int64_t step = 0;  ///< steps done, skipped updates included; it also says which data was used
  SpikeGuard guard;
  int64_t num_refused = 0;  ///< updates refused since the last that was not
  std::string config_text;  ///< of the run's TOML file
  std::string data_hash;    ///< of the packed corpus' manifest
};

std::filesystem::path checkpoint_path(const std::filesystem::path& output, int64_t step);
/// The complete checkpoints below `output`, the oldest first.
std::vector<std::filesystem::path> checkpoints(const std::filesystem::path& output);
/// The newest complete checkpoint below `output`, if any.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& output);
/// Removes all but the newest `keep`, and what an earlier call that was killed left hidden.
void remove_old_checkpoints(const std::filesystem::path& output, int64_t keep);

/// `tokenizer` is a directory whose files are copied along. Error, and nothing written, for weights that are
/// not finite.
void save_checkpoint(TrainStep& step, const std::filesystem::path& dir, const TrainerState& state,
                     const std::filesystem::path& tokenizer);
/// The model alone, for inference. The same Error.
void save_model(TrainStep& step, const std::filesystem::path& dir, const std::filesystem::path& tokenizer);

/// Restores weights, optimizer and state bit by bit. FileError for a checkpoint that is damaged or of another
/// model.
TrainerState load_checkpoint(TrainStep& step, const std::filesystem::path& dir);

/// xxHash64 over all weights, masters and moments: equal hashes mean equal training states.
std::string state_hash(TrainStep& step);

}  // namespace moge::train
