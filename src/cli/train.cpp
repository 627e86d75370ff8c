// moge train: the pre-training loop of train/pretrain.h on one TOML file.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/json_text.h"
#include "core/error.h"
#include "core/log.h"
#include "ops/machine.h"
#include "train/pretrain.h"

namespace moge::cli {

namespace {

struct TrainOptions {
  std::filesystem::path config;
  std::optional<std::string> output;
  int64_t steps = 0;
  bool fresh = false;
  int64_t threads = 0;
  bool json = false;

  std::vector<Option> options() {
    return {
        {.name = "CONFIG", .target = &config, .help = "A TOML file; configs/train has commented examples"},
        {.name = "output",
         .target = &output,
         .value = "DIR",
         .help = "Where checkpoints and logs go, instead of the file's"},
        {.name = "steps",
         .target = &steps,
         .value = "N",
         .help = "Stop after N steps in all, with a checkpoint; 0: the whole schedule",
         .min = 0},
        {.name = "fresh", .target = &fresh, .help = "Start anew although there are checkpoints to resume"},
        {.name = "threads",
         .target = &threads,
         .value = "N",
         .help = "0: all CPUs that the process may use",
         .min = 0,
         .max = 4096},
        {.name = "json", .target = &json, .help = "Print the result as one JSON object at the end"}};
  }
};

/// FLOP/s of all threads in the matmuls' arithmetic, the roof of MFU; 0 if this CPU has no fast path.
double peak_flops(ExecContext ctx, DType dtype) {
  double peak = 0;
  for (const ops::ComputeCeiling& c : ops::measure_compute(ctx))
    peak = std::max({peak, c.f32_flops, dtype == DType::kBF16 ? c.bf16_flops : 0.0});
  return peak;
}

void train(const TrainOptions& o) {
  train::TrainConfig config = train::load_train_config(o.config);
  check<UsageError>(!o.output || !o.output->empty(), "--output: expected a path, got ''");
  if (o.output) config.output = *o.output;
  ThreadPool pool(static_cast<int>(o.threads));
  const Interrupt interrupt;
  const train::PretrainResult r = train::pretrain(
      config, {.pool = &pool},
      {.fresh = o.fresh, .max_steps = o.steps, .peak_flops = peak_flops({.pool = &pool}, config.dtype)},
      interrupt.requested());
  log_info(r.finished ? "finished: " : "stopped (the same command goes on): ", r.steps, " steps, held-out ",
           rounded(r.held_out_bits_per_byte, 4), " bits per byte, ", rounded(r.tokens_per_second, 0),
           " tokens/s");
  if (!o.json) return;
  const nlohmann::ordered_json result = {{"output", config.output.string()},
                                         {"steps", r.steps},
                                         {"finished", r.finished},
                                         {"held_out_bits_per_byte", r.held_out_bits_per_byte},
                                         {"tokens_per_second", r.tokens_per_second},
                                         {"state_hash", r.state_hash}};
  print_json(result);
}

}  // namespace

Command train_command() {
  return make_command<TrainOptions>(
      {"train", "pre-trains a model; an interrupted run goes on where it stopped",
       "Trains as the file says, writes logs and checkpoints to its output directory, and at the end a "
       "model\n"
       "that moge run takes (OUTPUT/model). Run it again after an interruption, of any kind: it resumes "
       "from\n"
       "the last checkpoint and computes the same bits. Ctrl-C ends it after the current step, with a\n"
       "checkpoint; a second one at once.\n\n"
       "  moge train configs/train/demo-moge.toml\n"
       "  moge train configs/train/demo-moge.toml --steps 20 --output /tmp/try --fresh\n\n"
       "Those two want the text and tokenizer that script/demo makes. docs/training.md lists every key.\n"},
      train);
}

}  // namespace moge::cli
