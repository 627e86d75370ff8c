#include "cli/served_model.h"

#include <algorithm>
#include <chrono>

#include "cli/model_path.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/rng.h"
#include "engine/device_sequence.h"
#include "engine/session.h"
#include "model/loader.h"
#include "model/memory_fit.h"
#include "model/serving_loader.h"
#include "model/serving_random.h"

namespace moge::cli {

namespace {

/// A long context costs memory from the start: models made for more get this much unless --context asks.
constexpr int64_t kDefaultContext = 4096;

/// Of one pass on the CPU: more do not make it faster, and memory is planned for all.
constexpr int64_t kCpuBatchTokens = 256;

/// Whether the CPU runs a model as the GPU does, over a Runner, rather than over a Session.
bool serves_on_cpu(const ModelOptions& o) {
  check<UsageError>(o.dtype == DType::kBF16 || o.dtype == DType::kF32 || o.dtype == DType::kI8, "--dtype ",
                    name_of(o.dtype), ": on the CPU weights are bf16, f32 or i8");
  const bool serves = o.dtype == DType::kI8;
  check<UsageError>(o.kv_dtype == DType::kBF16 || (o.kv_dtype == DType::kF32 && !serves), "--kv-dtype ",
                    name_of(o.kv_dtype), ": on the CPU keys and values beside ", name_of(o.dtype),
                    " weights are bf16", serves ? "" : " or f32");
  return serves;
}

model::Model load(ExecContext ctx, const FoundModel& found, const ModelOptions& o) {
  if (!o.random_weights) return model::load_model(ctx, found.dir, found.config, o.dtype);
  model::Model model = model::allocate_model(found.config, o.dtype);
  model::init_weights(model.weights, model.config, static_cast<uint64_t>(o.seed), *ctx.pool);
  return model;
}

model::ServingModel load_on_device(ExecContext& ctx, const FoundModel& found, const ModelOptions& o,
                                   int64_t layers) {
  ProgressLine line(std::chrono::seconds(1));
  const auto progress = [&](const char* what) {
    return [&line, what](int64_t done, int64_t total) {
      line.show(str(what, " ", progress_bar(done, total)), done == total);
    };
  };
  if (o.random_weights)
    return model::random_serving_model(ctx, found.config, o.dtype, layers, static_cast<uint64_t>(o.seed),
                                       progress("making weights up"));
  check<UsageError>(layers == 0, "--layers cuts a model with --random-weights only");
  return model::load_serving_model(ctx, found.dir, found.config, o.dtype, progress("loading"));
}

}  // namespace

std::vector<Option> ModelOptions::options() {
  return {
      {.name = "MODEL",
       .target = &model,
       .help = "Hugging Face directory, or a config's name (moge --help lists them)"},
      {.name = "device",
       .target = &device,
       .value = "NAME",
       .help = "cpu, cuda (a GPU), or auto: the GPU if there is one",
       .choices = {"auto", "cpu", "cuda"}},
      {.name = "random-weights",
       .target = &random_weights,
       .help = "Make weights up: for speed and tests; prompt and output are then token ids"},
      {.name = "dtype",
       .target = &dtype,
       .value = "TYPE",
       .help = "Of the weights: bf16, f32 or i8; on a GPU bf16, i8 or fp8_e4m3. Eight bits: W8A8, made while "
               "loading"},
      {.name = "kv-dtype",
       .target = &kv_dtype,
       .value = "TYPE",
       .help = "Of cached keys and values: bf16, or f32 beside weights of bf16 or f32; on a GPU bf16, f16, "
               "i8 or fp8_e4m3"},
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

bool use_cuda(const std::string& device) {
  if (device == "cuda") cuda_backend();
  return device == "cuda" || (device == "auto" && cuda_refusal().empty());
}

void check_gpu_dtypes(const ModelOptions& o) {
  model::check_weight_dtype(o.dtype, "--dtype");
  model::check_kv_dtype(o.kv_dtype, "--kv-dtype");
}

FoundModel find_served_model(const ModelOptions& o) {
  std::filesystem::path dir = find_model(o.model);
  check<UsageError>(o.random_weights || has_weights(dir) || has_tokenizer(dir), o.model,
                    ": no weights (model.safetensors or model.safetensors.index.json) beside its config; "
                    "--random-weights makes some up");
  return {dir, spec::load_model_config(dir)};
}

model::ServingModel load_on_device(ExecContext& ctx, const ModelOptions& o, int64_t layers) {
  return load_on_device(ctx, find_served_model(o), o, layers);
}

ServedModel::ServedModel(const ModelOptions& o, const FoundModel& found)
    : pool_(static_cast<int>(o.threads)) {
  const auto start = std::chrono::steady_clock::now();
  ctx_.pool = &pool_;
  const int64_t context = o.context.value_or(std::min(found.config.max_position_embeddings, kDefaultContext));
  const bool on_gpu = use_cuda(o.device);
  std::unique_ptr<engine::Sequence> sequence;
  if (on_gpu) {
    check_gpu_dtypes(o);
    ctx_.device = {DeviceKind::kCuda, 0};
    ctx_.backend = &cuda_backend();
  }
  if (on_gpu || serves_on_cpu(o)) {
    const engine::RunnerConfig limits{
        .context = context,
        .max_batch_tokens = std::min(context, on_gpu ? kDefaultContext : kCpuBatchTokens),
        .kv_dtype = o.kv_dtype,
        .penalties = true};
    // Before the model is read.
    const engine::RunnerPlan plan =
        engine::Runner::plan_that_fits(ctx_, found.config, o.dtype, limits, model::free_bytes(ctx_));
    log_info("memory plan: ", plan.str());
    sequence =
        std::make_unique<engine::DeviceSequence>(ctx_, load_on_device(ctx_, found, o, 0), limits, plan);
  } else {
    const engine::SessionConfig limits{.context = context, .kv_dtype = o.kv_dtype};
    engine::Session::check_fits(found.config, o.dtype, limits, model::free_bytes(ctx_));
    sequence = std::make_unique<engine::Session>(ctx_, load(ctx_, found, o), limits);
    log_info("memory plan: ", sequence->memory_plan_text());
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  log_info("ready in ", rounded(seconds.count(), 2), " s on ",
           ctx_.backend ? ctx_.backend->info().name : "the CPU");
  generator_ = std::make_unique<engine::Generator>(std::move(sequence));
}

std::vector<int32_t> random_ids(const spec::ModelConfig& config, int64_t count, uint64_t seed,
                                uint64_t stream) {
  Rng rng(seed, stream);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.next_below(static_cast<uint32_t>(config.vocab_size)));
  return ids;
}

}  // namespace moge::cli
