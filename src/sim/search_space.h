// The shapes of an architecture search (arXiv 2505.21411, section 2.3): a grid over a MoGE model's sizes, of
// which those count whose parameters are within bounds.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "sim/model_loader.h"
#include "spec/model_config.h"

namespace moge::sim {

/// The sizes that a search varies; the rest is the base model's.
struct Shape {
  int32_t hidden_size = 0;
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;
  int32_t num_experts = 0;
  int32_t moe_intermediate_size = 0;

  bool operator==(const Shape&) const = default;
  std::string str() const;  ///< "48 x 5120, 40/8 heads, 64 experts of 1344"
};

struct SearchSpace {
  spec::ModelConfig base;
  int64_t shared_experts = 0;  ///< width of the shared expert in routed ones
  std::vector<int64_t> hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, num_experts,
      moe_intermediate_size;
  double min_parameters = 0;
  double max_parameters = 0;
  std::string fingerprint;  ///< of the file's text: what a resumed search must agree with
};

/// Reads a TOML file: `base` (the name of a model), `shared_experts`, `parameters` = {min,
/// max} and for each varied size a list, or {min, max, step}. Throws FileError for missing or unknown keys,
/// an empty range, a grid of more than kMaxGrid points.
inline constexpr int64_t kMaxGrid = 50'000'000;
SearchSpace load_search_space(const std::filesystem::path& file, const ModelLoader& load_model);

spec::ModelConfig model_of(const SearchSpace& space, const Shape& shape);
Shape shape_of(const spec::ModelConfig& config);

/// All shapes within bounds, in the grid's order. Never empty: throws UsageError if none is.
std::vector<Shape> shapes(const SearchSpace& space);

}  // namespace moge::sim
