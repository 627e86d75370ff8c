#include "sim/search_space.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/toml.h"
#include "spec/cost.h"

namespace moge::sim {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 20;
constexpr int64_t kMaxSize = int64_t{1} << 20;

std::vector<int64_t> read_range(JsonObject& top, const std::string& key) {
  const nlohmann::json* value = top.find(key);
  if (!value) top.throw_missing(key);
  const std::string where = str(top.where(), ": ", key);
  std::vector<int64_t> all;
  if (value->is_array()) {
    for (const nlohmann::json& item : *value) {
      check<FileError>(
          item.is_number_integer() && item.get<int64_t>() >= 1 && item.get<int64_t>() <= kMaxSize, where,
          ": expected whole numbers from 1 to ", kMaxSize);
      all.push_back(item.get<int64_t>());
    }
  } else {
    JsonObject range(*value, where);
    const int64_t min = range.require(range.integer("min", 1, kMaxSize), "min");
    const int64_t max = range.require(range.integer("max", 1, kMaxSize), "max");
    const int64_t step = range.require(range.integer("step", 1, kMaxSize), "step");
    range.refuse_unread();
    for (int64_t x = min; x <= max; x += step) all.push_back(x);
  }
  check<FileError>(!all.empty(), where, ": an empty range");
  return all;
}

}  // namespace

std::string Shape::str() const {
  return moge::str(num_hidden_layers, " x ", hidden_size, ", ", num_attention_heads, "/", num_key_value_heads,
                   " heads, ", num_experts, " experts of ", moe_intermediate_size);
}

SearchSpace load_search_space(const std::filesystem::path& file, const ModelLoader& load_model) {
  const std::string text = read_text_file(file, kMaxFileBytes);
  const nlohmann::json root = parse_toml(text, file.string());
  JsonObject top(root, file.string());
  SearchSpace space;
  space.base = load_model(top.require(top.text("base"), "base"));
  check<FileError>(space.base.is_moe(), file.string(), ": base: expected a mixture of experts");
  space.shared_experts = top.require(top.integer("shared_experts", 0, 1024), "shared_experts");
  int64_t grid = 1;
  for (const auto& [key, values] : {std::pair{"hidden_size", &space.hidden_size},
                                    {"num_hidden_layers", &space.num_hidden_layers},
                                    {"num_attention_heads", &space.num_attention_heads},
                                    {"num_key_value_heads", &space.num_key_value_heads},
                                    {"num_experts", &space.num_experts},
                                    {"moe_intermediate_size", &space.moe_intermediate_size}}) {
    *values = read_range(top, key);
    check<FileError>(static_cast<int64_t>(values->size()) <= kMaxGrid / grid, file.string(), ": more than ",
                     kMaxGrid, " points");
    grid *= static_cast<int64_t>(values->size());
  }
  const nlohmann::json* bounds_json = top.find("parameters");
  if (!bounds_json) top.throw_missing("parameters");
  JsonObject bounds(*bounds_json, file.string() + ": parameters");
  space.min_parameters = bounds.require(bounds.number("min"), "min");
  space.max_parameters = bounds.require(bounds.number("max"), "max");
  bounds.refuse_unread();
  check<FileError>(space.min_parameters >= 0 && space.min_parameters <= space.max_parameters, bounds.where(),
                   ": min ", space.min_parameters, " is above max ", space.max_parameters);
  top.refuse_unread();
  space.fingerprint = Checksum::hex(Checksum::of(std::as_bytes(std::span(text.data(), text.size()))));
  return space;
}

spec::ModelConfig model_of(const SearchSpace& space, const Shape& shape) {
  spec::ModelConfig c = space.base;
  c.hidden_size = shape.hidden_size;
  c.num_hidden_layers = shape.num_hidden_layers;
  c.num_attention_heads = shape.num_attention_heads;
  c.num_key_value_heads = shape.num_key_value_heads;
  c.num_experts = shape.num_experts;
  c.moe_intermediate_size = shape.moe_intermediate_size;
  c.shared_expert_intermediate_size = space.shared_experts * shape.moe_intermediate_size;
  return c;
}

Shape shape_of(const spec::ModelConfig& c) {
  return {.hidden_size = static_cast<int32_t>(c.hidden_size),
          .num_hidden_layers = static_cast<int32_t>(c.num_hidden_layers),
          .num_attention_heads = static_cast<int32_t>(c.num_attention_heads),
          .num_key_value_heads = static_cast<int32_t>(c.num_key_value_heads),
          .num_experts = static_cast<int32_t>(c.num_experts),
          .moe_intermediate_size = static_cast<int32_t>(c.moe_intermediate_size)};
}

std::vector<Shape> shapes(const SearchSpace& space) {
  std::vector<Shape> all;
  spec::ModelConfig c = space.base;
  for (const int64_t D : space.hidden_size)
    for (const int64_t L : space.num_hidden_layers)
      for (const int64_t H : space.num_attention_heads)
        for (const int64_t KV : space.num_key_value_heads)
          for (const int64_t E : space.num_experts)
            for (const int64_t F : space.moe_intermediate_size) {
              if (H % KV != 0 || E % c.num_expert_groups != 0 || E < c.num_experts_per_tok) continue;
              c.hidden_size = D;
              c.num_hidden_layers = L;
              c.num_attention_heads = H;
              c.num_key_value_heads = KV;
              c.num_experts = E;
              c.moe_intermediate_size = F;
              c.shared_expert_intermediate_size = space.shared_experts * F;
              const auto parameters = static_cast<double>(spec::parameters(c));
              if (parameters < space.min_parameters || parameters > space.max_parameters) continue;
              all.push_back(shape_of(c));
            }
  check<UsageError>(!all.empty(), "no shape of the search space has from ", space.min_parameters, " to ",
                    space.max_parameters, " parameters");
  return all;
}

}  // namespace moge::sim
