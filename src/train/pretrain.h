// The pre-training loop: data, schedule, steps, guard, evaluation, logs, checkpoints, resume.
#pragma once
#include <atomic>
#include <string>

#include "train/config.h"

namespace moge::train {

struct PretrainOptions {
  bool fresh = false;     ///< ignore checkpoints in the output directory instead of resuming
  int64_t max_steps = 0;  ///< stop (with a checkpoint) after this many steps in all; 0: the whole schedule
  double peak_flops = 0;  ///< of this machine, for MFU; 0: not shown
};

struct PretrainResult {
  int64_t steps = 0;
  double held_out_bits_per_byte = 0;
  double tokens_per_second = 0;  ///< of this process, evaluation and checkpoints excluded
  std::string state_hash;        ///< of weights and optimizer state: equal runs have equal hashes
  bool finished = false;         ///< false: stopped early; run again to go on
};

/// Throws OutOfMemoryError when what a run plans to allocate for a model is larger than `free`
/// (model/memory_fit.h, free_bytes): which part, by how much, and which micro_batch_tokens, or else how many
/// layers, would fit.
void check_fits(const ExecContext& ctx, const TrainConfig& config, const spec::ModelConfig& model,
                int64_t free);

/// Trains or resumes. Writes to config.output: train.csv, eval.csv, speed.csv, TensorBoard events,
/// step-NNNNNNNN checkpoints, and model/ (the final weights) at the end. `stop` ends the run after the
/// current step, with a checkpoint. Killing the process at any moment loses nothing but the steps since the
/// last checkpoint; the resumed run computes the same bits. FileError while another run is at work in
/// config.output. OutOfMemoryError, before weights are made or read, for a plan that does not fit
/// (check_fits). Error, with no checkpoint of that state, for weights or a held-out loss that are not
/// finite, and after 100 refused updates in a row.
PretrainResult pretrain(const TrainConfig& config, ExecContext ctx, const PretrainOptions& options,
                        const std::atomic<bool>& stop);

}  // namespace moge::train
