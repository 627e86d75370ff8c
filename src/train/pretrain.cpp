#include "train/pretrain.h"

#include <array>
#include <chrono>
#include <cmath>
#include <numbers>
#include <numeric>

#include "core/files.h"
#include "core/log.h"
#include "core/progress.h"
#include "model/loader.h"
#include "model/memory_fit.h"
#include "spec/cost.h"
#include "train/balance_stats.h"
#include "train/checkpoint.h"
#include "train/csv_log.h"
#include "train/data.h"
#include "train/event_file.h"

namespace moge::train {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// So many updates refused in a row end the run: the weights are not finite, or the loss jumped for good.
constexpr int64_t kMaxRefused = 100;

const std::vector<std::string> kTrainColumns = {
    "step",    "phase",           "tokens",           "lr",
    "loss",    "balance",         "z_loss",           "grad_norm",
    "updated", "imbalance_score", "expert_min_share", "expert_max_share"};
const std::vector<std::string> kSpeedColumns = {"step", "tokens_per_second"};
const std::vector<std::string> kEvalColumns = {"step", "bits_per_byte", "loss"};

/// FileError for rows longer than the model has positions.
void check_lengths(const TrainConfig& config, const spec::ModelConfig& model) {
  for (const Phase& p : config.phases)
    check<FileError>(
        p.sequence_length <= model.max_position_embeddings,
        "[[phase]]: sequence_length = ", p.sequence_length,
        ": expected at most the model's max_position_embeddings = ", model.max_position_embeddings);
}

int64_t max_micro_batch(const TrainConfig& config) {
  int64_t tokens = 0;
  for (const Phase& p : config.phases)
    tokens = std::max(tokens, config.micro_batch_tokens > 0 ? config.micro_batch_tokens : p.batch_tokens);
  return tokens;
}

/// Those that the phases admit and that are smaller than the run's, in rising order.
std::vector<int64_t> smaller_micro_batches(const TrainConfig& config) {
  int64_t of = 1, divides = 0;  // multiples of the one, divisors of the other
  for (const Phase& p : config.phases) {
    if (of > INT32_MAX) return {};  // more than any batch has
    of = std::lcm(of, p.sequence_length);
    divides = std::gcd(divides, p.batch_tokens);
  }
  std::vector<int64_t> all;
  for (int64_t tokens = of; tokens < std::min(divides + 1, max_micro_batch(config)); tokens += of)
    if (divides % tokens == 0) all.push_back(tokens);
  return all;
}

model::Model initial_model(const TrainConfig& config, ExecContext& ctx) {
  const bool made = config.init_from.empty();
  const spec::ModelConfig shape = spec::load_model_config(made ? config.model : config.init_from);
  check_lengths(config, shape);  // before weights are read
  check_fits(ctx, config, shape, model::free_bytes(ctx));
  if (!made) return model::load_model(ctx, config.init_from, shape, config.dtype);
  model::Model model = model::allocate_model(shape, config.dtype);
  model::init_weights(model.weights, model.config, config.seed, *ctx.pool);
  return model;
}

/// Everything of one run. The loop is run(); the rest are its steps.
class Pretraining {
 public:
  Pretraining(const TrainConfig& config, ExecContext ctx, const PretrainOptions& options)
      : config_(config),
        options_(options),
        tokenizer_(text::load_tokenizer(config.tokenizer)),
        step_(ctx, initial_model(config, ctx), config.optimizer, config.loss, max_micro_batch(config),
              max_micro_batch(config)),
        corpus_(open_corpus(config, *tokenizer_, step_.model().config.vocab_size)),
        split_(text::split_corpus(corpus_, config.holdout_modulus)) {
    state_.config_text = config.text;
    state_.data_hash = str(text::corpus_hash(read_text_file(corpus_.dir() / "corpus.json")));
    resume();
    csv_ = std::make_unique<CsvLog>(config.output / "train.csv", kTrainColumns, state_.step);
    speed_csv_ = std::make_unique<CsvLog>(config.output / "speed.csv", kSpeedColumns, state_.step);
    eval_csv_ = std::make_unique<CsvLog>(config.output / "eval.csv", kEvalColumns, state_.step);
    events_ = std::make_unique<EventFile>(config.output, state_.step);
    print_plan();
  }

  PretrainResult run(const std::atomic<bool>& stop) {
    const int64_t all = total_steps(config_.phases);
    const int64_t end = options_.max_steps > 0 ? std::min(options_.max_steps, all) : all;
    const auto due = [&](int64_t every) { return every > 0 && state_.step > 0 && state_.step % every == 0; };
    while (state_.step < end && !stop) {
      // Before the step that follows, so that the state at which a run ends is evaluated once. A resumed run
      // evaluates its checkpoint again: the row of that step was dropped with those after it.
      if (due(config_.eval_every)) evaluate();
      if (due(config_.checkpoint_every) && steps_here_ > 0) checkpoint();
      train_one();
    }
    progress_.end();
    if (stop)
      log_info("stopping after a look at the held-out text and a checkpoint; Ctrl-C again ends at once");
    PretrainResult result{
        .steps = state_.step,
        .held_out_bits_per_byte = evaluate(),
        .tokens_per_second = train_seconds_ > 0 ? static_cast<double>(trained_tokens_) / train_seconds_ : 0,
        .state_hash = state_hash(step_),
        .finished = state_.step == all};
    checkpoint();
    if (result.finished) save_model(step_, config_.output / "model", config_.tokenizer);
    return result;
  }

 private:
  void resume() {
    const std::vector<fs::path> all = checkpoints(config_.output);
    if (options_.fresh || all.empty()) return;
    const fs::path& latest = all.back();
    TrainerState saved;
    try {
      saved = load_checkpoint(step_, latest);
    } catch (const FileError& error) {
      const std::string otherwise =
          all.size() > 1 ? "resumes from " + all[all.size() - 2].string() : "begins anew";
      throw FileError(
          str(error.what(), "; if ", latest.string(), " is damaged, remove it, and the run ", otherwise));
    }
    const std::string difference = config_difference(saved.config_text, state_.config_text);
    check<FileError>(difference.empty(), latest.string(),
                     ": was made with another configuration: ", difference,
                     "; use --fresh or another output directory");
    check<FileError>(saved.data_hash == state_.data_hash, latest.string(),
                     ": was made with other data; use --fresh or another output directory");
    state_ = saved;
    log_info("resuming at step ", state_.step, " from ", latest.string());
  }

  void print_plan() const {
    const spec::ModelConfig& c = step_.model().config;
    log_info("model: ", spec::parameters(c), " parameters, ", spec::active_parameters(c),
             " active; data: ", split_.train.size(), " documents to train on, ", split_.held_out.size(),
             " held out, ", corpus_.num_tokens(), " tokens; ", total_steps(config_.phases), " steps");
    log_info("memory: ", step_.memory_plan().str());
  }

  void train_one() {
    const PhaseStep at = phase_of(config_.phases, state_.step);
    const Phase& phase = config_.phases[at.phase_idx];
    const auto start = Clock::now();
    fill_batches(at);
    std::vector<MicroBatch> micro_batches;
    for (text::TokenBatch& rows : rows_) micro_batches.push_back(as_micro_batch(rows));
    StepResult result = step_.compute_gradients(micro_batches);
    const double lr = learning_rate(phase, at.step);
    if (state_.guard.accept(result.loss, config_.spike_sigmas)) {
      step_.update(result, static_cast<float>(lr));
    } else {
      progress_.end();
      log_warning("step ", state_.step, ": loss ", result.loss, " refused (running mean ", state_.guard.mean,
                  ")");
    }
    const double seconds = seconds_since(start);
    train_seconds_ += seconds;
    trained_tokens_ += phase.batch_tokens;
    log(at, lr, result, static_cast<double>(phase.batch_tokens) / seconds);
    ++state_.step;
    state_.num_refused = result.updated ? 0 : state_.num_refused + 1;
    check(state_.num_refused < kMaxRefused, "step ", state_.step, ": ", state_.num_refused,
          " updates in a row were refused, the last for loss ", result.loss, " and gradient norm ",
          result.grad_norm, "; lower lr or raise [loss] spike_sigmas, and start anew with --fresh");
  }

  void fill_batches(const PhaseStep& at) {
    const Phase& phase = config_.phases[at.phase_idx];
    if (!batcher_ || batcher_phase_ != at.phase_idx) {
      batcher_ = std::make_unique<text::TokenBatcher>(corpus_, split_.train, phase.sequence_length,
                                                      config_.seed + at.phase_idx);
      batcher_phase_ = at.phase_idx;
    }
    const int64_t micro_tokens =
        config_.micro_batch_tokens > 0 ? config_.micro_batch_tokens : phase.batch_tokens;
    const int64_t rows = micro_tokens / phase.sequence_length;
    rows_.resize(phase.batch_tokens / micro_tokens);
    int64_t first = at.step * (phase.batch_tokens / phase.sequence_length);
    for (text::TokenBatch& batch : rows_) {
      batcher_->fill(first, rows, batch);
      first += rows;
    }
  }

  BalanceStats mean_balance(int64_t num_tokens) const {
    const spec::ModelConfig& c = step_.model().config;
    // A top-K model has one group; it is measured as if spread over K devices, like its MoGE twin.
    const int64_t devices = c.num_expert_groups > 1 ? c.num_expert_groups : c.num_experts_per_tok;
    BalanceStats mean;
    if (!c.is_moe() || c.num_experts % devices != 0) return mean;
    const auto L = static_cast<double>(c.num_hidden_layers);
    for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
      const BalanceStats s = balance_stats(step_.expert_counts(l), devices, num_tokens);
      mean.imbalance_score += s.imbalance_score / L;
      mean.min_share += s.min_share / L;
      mean.max_share += s.max_share / L;
    }
    return mean;
  }

  void log(const PhaseStep& at, double lr, const StepResult& r, double tokens_per_second) {
    const Phase& phase = config_.phases[at.phase_idx];
    const BalanceStats b = mean_balance(phase.batch_tokens);
    csv_->row(state_.step, {static_cast<double>(at.phase_idx), static_cast<double>(phase.batch_tokens), lr,
                            r.loss, r.balance, r.z_loss, r.grad_norm, r.updated ? 1.0 : 0.0,
                            b.imbalance_score, b.min_share, b.max_share});
    const auto f = [](double v) { return static_cast<float>(v); };
    speed_csv_->row(state_.step, {tokens_per_second});
    events_->write(state_.step, {{"train/loss", f(r.loss)},
                                 {"train/lr", f(lr)},
                                 {"train/grad_norm", f(r.grad_norm)},
                                 {"router/balance_loss", f(r.balance)},
                                 {"router/z_loss", f(r.z_loss)},
                                 {"router/imbalance_score", f(b.imbalance_score)},
                                 {"router/expert_min", f(b.min_share)},
                                 {"router/expert_max", f(b.max_share)},
                                 {"speed/tokens_per_second", f(tokens_per_second)}});
    const int64_t all = total_steps(config_.phases);
    const double rate = static_cast<double>(trained_tokens_) / train_seconds_;
    std::string mfu;
    if (options_.peak_flops > 0) {
      const double flops =
          spec::flops_per_token(step_.model().config, phase.sequence_length, spec::Phase::kTraining);
      mfu = str("  MFU ", rounded(100 * flops * rate / options_.peak_flops, 1), "%");
    }
    const double left =
        train_seconds_ / static_cast<double>(++steps_here_) * static_cast<double>(all - state_.step - 1);
    progress_.show(str("step ", state_.step + 1, "/", all, "  loss ", rounded(r.loss, 3), "  ",
                       static_cast<int64_t>(rate), " tokens/s", mfu, "  IS ", rounded(b.imbalance_score, 3),
                       "  experts ", rounded(b.min_share, 2), "-", rounded(b.max_share, 2), "x  ETA ",
                       duration(left)));
  }

  /// Bits per byte of held-out text.
  double evaluate() {
    const Phase& phase =
        config_.phases[phase_of(config_.phases, std::max<int64_t>(0, state_.step - 1)).phase_idx];
    const int64_t batch = std::max<int64_t>(1, max_micro_batch(config_) / phase.sequence_length);
    const auto documents = static_cast<int64_t>(split_.held_out.size());
    text::EvalBatches batches(
        corpus_, split_.held_out,
        {.seq_len = phase.sequence_length,
         .batch_size = batch,
         .max_tokens_per_document = std::max<int64_t>(2, config_.eval_tokens / documents)});
    double nats = 0;
    for (text::TokenBatch rows; batches.next(rows);)
      for (const float loss : step_.evaluate(as_micro_batch(rows))) nats += loss;
    const double bits = nats / std::numbers::ln2 / batches.num_text_bytes();
    progress_.end();
    check(std::isfinite(bits), "step ", state_.step, ": the held-out loss is not finite: training diverged");
    log_info("step ", state_.step, ": held-out ", rounded(bits, 4), " bits per byte (",
             rounded(nats / static_cast<double>(batches.num_targets()), 4), " nats per token)");
    eval_csv_->row(state_.step, {bits, nats / static_cast<double>(batches.num_targets())});
    events_->write(state_.step, {{"eval/bits_per_byte", static_cast<float>(bits)}});
    return bits;
  }

  void checkpoint() {
    save_checkpoint(step_, checkpoint_path(config_.output, state_.step), state_, config_.tokenizer);
    remove_old_checkpoints(config_.output, config_.keep_checkpoints);
  }

  const TrainConfig& config_;
  const PretrainOptions options_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  TrainStep step_;
  text::Corpus corpus_;
  text::CorpusSplit split_;
  TrainerState state_;
  std::unique_ptr<CsvLog> csv_;
  std::unique_ptr<CsvLog> speed_csv_;
  std::unique_ptr<CsvLog> eval_csv_;
  std::unique_ptr<EventFile> events_;
  std::unique_ptr<text::TokenBatcher> batcher_;
  size_t batcher_phase_ = 0;
  std::vector<text::TokenBatch> rows_;
  ProgressLine progress_;
  double train_seconds_ = 0;
  int64_t trained_tokens_ = 0;
  int64_t steps_here_ = 0;
};

}  // namespace

void check_fits(const ExecContext& ctx, const TrainConfig& config, const spec::ModelConfig& model,
                int64_t free) {
  const auto plan = [&](const spec::ModelConfig& shape, int64_t tokens) {
    return TrainStep::plan(ctx, shape, config.dtype, config.loss, tokens, tokens);
  };
  const int64_t tokens = max_micro_batch(config);
  const TrainStep::MemoryPlan need = plan(model, tokens);
  if (need.total() <= free) return;
  const std::vector<int64_t> smaller = smaller_micro_batches(config);
  const auto nth = [&](int64_t n) { return smaller[static_cast<size_t>(n - 1)]; };
  const std::array<model::Fewer, 2> fewer = {
      {{.most = static_cast<int64_t>(smaller.size()),
        .total = [&](int64_t n) { return plan(model, nth(n)).total(); },
        .text = [&](int64_t n) { return str("micro_batch_tokens = ", nth(n)); }},
       model::fewer_layers(model, [&](const spec::ModelConfig& c) { return plan(c, tokens).total(); })}};
  model::check_fits(ctx, need.parts(), free, fewer);
}

PretrainResult pretrain(const TrainConfig& config, ExecContext ctx, const PretrainOptions& options,
                        const std::atomic<bool>& stop) {
  make_directories(config.output);
  // Two runs would remove each other's checkpoints and mix their logs.
  const DirectoryLock lock(config.output);
  return Pretraining(config, ctx, options).run(stop);
}

}  // namespace moge::train
