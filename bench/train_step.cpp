// Tokens per second of one optimizer step on random tokens: train_step CONFIG [--tokens T] [--sequence S]
// [--dtype bf16|f32] [--steps N] [--threads N]. The peer is bench/peers/torch_train_step.py with the same
// numbers.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "core/rng.h"
#include "spec/cost.h"
#include "train/train_step.h"

namespace moge {
namespace {

struct Options {
  std::string config;
  int64_t tokens = 4096, sequence = 512, steps = 10;
  int threads = 0;
  DType dtype = DType::kBF16;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (!arg.starts_with("--")) {
      o.config = arg;
      continue;
    }
    check<UsageError>(i + 1 < argc, arg, " needs a value");
    const std::string value = argv[++i];
    if (arg == "--tokens")
      o.tokens = std::stoll(value);
    else if (arg == "--sequence")
      o.sequence = std::stoll(value);
    else if (arg == "--steps")
      o.steps = std::stoll(value);
    else if (arg == "--threads")
      o.threads = std::stoi(value);
    else if (arg == "--dtype")
      o.dtype = value == "f32" ? DType::kF32 : DType::kBF16;
    else
      throw UsageError("unknown flag " + arg);
  }
  check<UsageError>(!o.config.empty() && o.tokens % o.sequence == 0,
                    "usage: train_step CONFIG [--tokens T ...]");
  return o;
}

void run(const Options& o) {
  const spec::ModelConfig config = spec::load_model_config(o.config);
  ThreadPool pool(o.threads);
  ExecContext ctx{.pool = &pool};
  model::Model model = model::allocate_model(config, o.dtype);
  model::init_weights(model.weights, config, 1, pool);
  const int64_t sequences = o.tokens / o.sequence;
  train::TrainStep step(ctx, std::move(model), {}, {.balance_coef = 0.01F}, o.tokens, sequences);

  std::vector<int32_t> tokens(o.tokens), targets(o.tokens), positions(o.tokens), cu(sequences + 1);
  Rng rng(2);
  for (int64_t t = 0; t < o.tokens; ++t) {
    tokens[t] = static_cast<int32_t>(rng.next_below(static_cast<uint32_t>(config.vocab_size)));
    positions[t] = static_cast<int32_t>(t % o.sequence);
    targets[t] = (t + 1) % o.sequence == 0 ? -1 : 0;
  }
  for (int64_t t = 0; t + 1 < o.tokens; ++t)
    if (targets[t] == 0) targets[t] = tokens[t + 1];
  for (int64_t b = 0; b <= sequences; ++b) cu[b] = static_cast<int32_t>(b * o.sequence);
  const auto tensor = [](std::vector<int32_t>& v) {
    return Tensor(v.data(), DType::kI32, {static_cast<int64_t>(v.size())});
  };
  const train::MicroBatch batch{
      {.tokens = tensor(tokens), .positions = tensor(positions), .cu_seqlens = tensor(cu)}, tensor(targets)};

  std::vector<double> seconds;
  double loss = 0;
  for (int64_t s = 0; s < o.steps + 2; ++s) {  // two to warm up
    const auto start = std::chrono::steady_clock::now();
    train::StepResult result = step.compute_gradients({&batch, 1});
    step.update(result, 1e-3F);
    loss = result.loss;
    if (s >= 2)
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double flops = spec::flops_per_token(config, o.sequence, spec::Phase::kTraining);
  const auto rate = static_cast<double>(o.tokens) / median;
  std::printf(
      "{\"tokens_per_second\": %.0f, \"best_tokens_per_second\": %.0f, \"gflops\": %.1f, \"dtype\": \"%s\", "
      "\"threads\": %d, \"tokens\": %lld, \"loss\": %.6f}\n",
      rate, static_cast<double>(o.tokens) / seconds.front(), rate * flops * 1e-9, name_of(o.dtype),
      pool.num_threads(), static_cast<long long>(o.tokens), loss);
}

}  // namespace
}  // namespace moge

int main(int argc, char** argv) {
  try {
    moge::run(moge::parse(argc, argv));
  } catch (const moge::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return static_cast<int>(e.exit_code);
  }
  return 0;
}
