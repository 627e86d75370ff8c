#include "cli/served_model.h"

#include <algorithm>
#include <chrono>

#include "cli/model_path.h"
#include "core/error.h"
#include "core/log.h"
#include "core/rng.h"
#include "model/loader.h"

namespace moge::cli {

namespace {

/// A long context costs memory from the start: models made for more get this much unless --context asks.
constexpr int64_t kDefaultContext = 4096;

model::Model load(ExecContext ctx, const std::filesystem::path& dir, const ModelOptions& o) {
  check<UsageError>(o.dtype == DType::kBF16 || o.dtype == DType::kF32, "--dtype ", name_of(o.dtype),
                    ": on the CPU weights are bf16 or f32");
  if (!o.random_weights) {
    check<UsageError>(has_weights(dir) || has_tokenizer(dir), o.model,
                      ": a config without weights; --random-weights makes some up");
    return model::load_model(ctx, dir, o.dtype);
  }
  model::Model model = model::allocate_model(spec::load_model_config(dir), o.dtype);
  model::init_weights(model.weights, model.config, static_cast<uint64_t>(o.seed), *ctx.pool);
  return model;
}

std::string mib(int64_t bytes) {
  return str((bytes + (1 << 19)) >> 20, " MiB");
}

}  // namespace

std::vector<Option> ModelOptions::options() {
  return {
      {.name = "MODEL", .target = &model, .help = "Hugging Face directory, or a config's name"},
      {.name = "random-weights",
       .target = &random_weights,
       .help = "Make weights up: for speed and tests; prompt and output are then token ids"},
      {.name = "dtype",
       .target = &dtype,
       .value = "TYPE",
       .help = "Of the weights: bf16 or f32; on a GPU bf16, i8 or fp8_e4m3 (W8A8)"},
      {.name = "kv-dtype",
       .target = &kv_dtype,
       .value = "TYPE",
       .help = "Of cached keys and values: bf16 or f32; on a GPU bf16, i8 or fp8_e4m3"},
      {.name = "context",
       .target = &context,
       .value = "N",
       .help = str("Tokens of prompt and answer that fit (default: what the model was made for, at most ",
                   kDefaultContext, ")"),
       .min = 1},
      {.name = "seed", .target = &seed, .value = "N", .help = "The same seed draws the same text", .min = 0},
      {.name = "threads",
       .target = &threads,
       .value = "N",
       .help = "0: all CPUs that the process may use",
       .min = 0,
       .max = 4096}};
}

ServedModel::ServedModel(const ModelOptions& o)
    : dir_(find_model(o.model)), pool_(static_cast<int>(o.threads)) {
  const auto start = std::chrono::steady_clock::now();
  const ExecContext ctx{.pool = &pool_};
  model::Model model = load(ctx, dir_, o);
  const int64_t longest = model.config.max_position_embeddings;
  generator_ = std::make_unique<engine::Generator>(
      ctx, std::move(model),
      engine::SessionConfig{.context = o.context.value_or(std::min(longest, kDefaultContext)),
                            .kv_dtype = o.kv_dtype});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const engine::Session::MemoryPlan& plan = generator_->session().memory_plan();
  log_info("ready in ", seconds.count(), " s; memory: weights ", mib(plan.weights), ", KV cache ",
           mib(plan.kv_cache), ", activations ", mib(plan.activations), ", workspace ", mib(plan.workspace));
}

std::vector<int32_t> ServedModel::random_ids(int64_t count, uint64_t seed) {
  Rng rng(seed, 1);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids)
    id = static_cast<int32_t>(rng.next_below(static_cast<uint32_t>(config().vocab_size)));
  return ids;
}

}  // namespace moge::cli
