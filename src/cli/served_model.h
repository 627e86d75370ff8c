// A model ready to generate, as the commands that generate want it: options, weights, memory.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "core/thread_pool.h"
#include "engine/generator.h"

namespace moge::cli {

struct ModelOptions {
  std::string model;
  bool random_weights = false;
  DType dtype = DType::kBF16;
  DType kv_dtype = DType::kBF16;
  std::optional<int64_t> context;
  int64_t seed = 1;
  int64_t threads = 0;

  std::vector<Option> options();
};

class ServedModel {
 public:
  /// Loads the weights, or with random_weights makes them up from the seed, and logs the memory plan.
  explicit ServedModel(const ModelOptions& options);

  const std::filesystem::path& dir() const { return dir_; }
  engine::Generator& generator() { return *generator_; }
  const spec::ModelConfig& config() { return generator_->session().config(); }
  /// `count` token ids that only depend on the seed.
  std::vector<int32_t> random_ids(int64_t count, uint64_t seed);

 private:
  std::filesystem::path dir_;
  ThreadPool pool_;
  std::unique_ptr<engine::Generator> generator_;
};

}  // namespace moge::cli
