#include "cli/generation_config.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"

namespace moge::cli {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 20;

/// An id below `vocab_size` or a list of them.
std::vector<int32_t> ids_of(JsonObject& object, const char* key, int64_t vocab_size) {
  const nlohmann::json* value = object.find(key);
  if (!value) return {};
  std::vector<int32_t> ids;
  for (const nlohmann::json& id : value->is_array() ? *value : nlohmann::json::array({*value})) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size)
      object.throw_wrong(key, str("token ids from 0 to ", vocab_size - 1));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

GenerationConfig load_generation_config(const std::filesystem::path& model_dir, int64_t vocab_size) {
  const std::filesystem::path path = model_dir / "generation_config.json";
  if (!std::filesystem::exists(path)) return {};
  const nlohmann::json json = parse_json(read_text_file(path, kMaxFileBytes), path.string());
  JsonObject object(json, path.string());
  return {
      .do_sample = object.boolean("do_sample"),
      .temperature = object.number("temperature", 0, kMaxTemperature),
      .top_k = object.integer("top_k", 0),
      .top_p = object.number("top_p", 0, 1),
      .min_p = object.number("min_p", 0, 1),
      .repetition_penalty = object.number("repetition_penalty", kMinRepetitionPenalty, kMaxRepetitionPenalty),
      .eos_token_id = ids_of(object, "eos_token_id", vocab_size)};
}

}  // namespace moge::cli
