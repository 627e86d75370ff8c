// A model ready to generate, as the commands that generate want it: options, weights, memory.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "core/exec_context.h"
#include "engine/generator.h"
#include "engine/runner.h"

namespace moge::cli {

struct ModelOptions {
  std::string model;
  std::string device = "auto";
  bool random_weights = false;
  DType dtype = DType::kBF16;
  DType kv_dtype = DType::kBF16;
  std::optional<int64_t> context;
  int64_t seed = 1;
  int64_t threads = 0;

  std::vector<Option> options();
};

/// Whether a --device of auto, cpu or cuda means the GPU. DeviceError when it was asked for and cannot be
/// used.
bool use_cuda(const std::string& device);

/// UsageError, naming the flag, for weights or a cache of a type that a GPU does not serve.
void check_gpu_dtypes(const ModelOptions& options);

/// A model's directory and its config.json.
struct FoundModel {
  std::filesystem::path dir;
  spec::ModelConfig config;
};
/// UsageError when it is a config alone and weights are not to be made up. A model whose weights are missing
/// is found: the file that should have them is named when they are read.
FoundModel find_served_model(const ModelOptions& options);

/// The weights of a model on ctx.backend's device (the CPU without one): from its directory with progress on
/// standard error, or random, then only the first `layers` of them (0: all).
model::ServingModel load_on_device(ExecContext& ctx, const ModelOptions& options, int64_t layers);

/// `count` ids below the vocabulary's size that only depend on seed and stream.
std::vector<int32_t> random_ids(const spec::ModelConfig& config, int64_t count, uint64_t seed,
                                uint64_t stream);

class ServedModel {
 public:
  /// Loads the weights, or with random_weights makes them up from the seed, and logs the memory plan.
  explicit ServedModel(const ModelOptions& options) : ServedModel(options, find_served_model(options)) {}
  ServedModel(const ModelOptions& options, const FoundModel& found);

  engine::Generator& generator() { return *generator_; }
  const spec::ModelConfig& config() { return generator_->sequence().config(); }
  ExecContext& exec_context() { return ctx_; }

 private:
  ThreadPool pool_;
  ExecContext ctx_;
  std::unique_ptr<engine::Generator> generator_;
};

}  // namespace moge::cli
