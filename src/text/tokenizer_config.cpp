#include "text/tokenizer_config.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "text/tokenizer_json.h"

namespace moge::text {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = int64_t{64} << 20;
constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max() - 1;

/// A token written as a string or as an AddedToken object.
AddedToken parse_token(const json& value, const std::string& where) {
  if (value.is_object()) return parse_added_token(value, where);
  check<FileError>(value.is_string(), where, ": expected a token as a string or an object, got ",
                   json_excerpt(value));
  AddedToken token;
  token.content = value.get<std::string>();
  return token;
}

void add_special(TokenizerConfig& config, AddedToken token) {
  token.special = true;
  const auto same = std::find_if(config.added_tokens.begin(), config.added_tokens.end(),
                                 [&](const AddedToken& other) { return other.content == token.content; });
  if (same == config.added_tokens.end()) {
    config.added_tokens.push_back(std::move(token));
  } else {
    same->special = true;
  }
}

void read_token_names(TokenizerConfig& config, JsonObject& object) {
  const auto fill = [&](std::optional<std::string>& token, const char* key) {
    const json* value = object.find(key);
    if (!token && value != nullptr) token = parse_token(*value, str(object.where(), ": ", key)).content;
  };
  fill(config.bos_token, "bos_token");
  fill(config.eos_token, "eos_token");
  fill(config.pad_token, "pad_token");
  fill(config.unk_token, "unk_token");
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const json* list = object.find(key);
    if (list == nullptr) continue;
    if (!list->is_array() && !list->is_object()) object.throw_wrong(key, "an array or object of tokens");
    for (const json& entry : *list) add_special(config, parse_token(entry, str(object.where(), ": ", key)));
  }
}

void read_tokenizer_config(TokenizerConfig& config, JsonObject& object) {
  config.add_bos_token = object.boolean("add_bos_token");
  config.add_eos_token = object.boolean("add_eos_token");
  config.legacy = object.boolean("legacy").value_or(true);
  if (const json* decoder = object.find("added_tokens_decoder")) {
    if (!decoder->is_object()) object.throw_wrong("added_tokens_decoder", "an object of ids and tokens");
    const std::string where = object.where() + ": added_tokens_decoder";
    for (const auto& [key, entry] : decoder->items()) {
      const bool is_id =
          !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
      check<FileError>(is_id, where, ": expected a token id, got \"", key, '"');
      AddedToken token = parse_added_token(entry, where);
      token.id = static_cast<int32_t>(std::stol(key));
      config.added_tokens.push_back(std::move(token));
    }
  }
  read_token_names(config, object);
}

void read_added_tokens(TokenizerConfig& config, const json& document, JsonObject& object) {
  for (const auto& [content, id] : document.items()) {
    const auto known =
        std::find_if(config.added_tokens.begin(), config.added_tokens.end(),
                     [&, &name = content](const AddedToken& token) { return token.content == name; });
    const auto checked = static_cast<int32_t>(object.require(object.integer(content, 0, kMaxId), content));
    if (known == config.added_tokens.end()) {
      AddedToken token;
      token.id = checked;
      token.content = content;
      config.added_tokens.push_back(std::move(token));
    } else if (known->id < 0) {
      known->id = checked;
    }
  }
}

}  // namespace

std::unordered_set<std::string> TokenizerConfig::special_contents() const {
  std::unordered_set<std::string> contents;
  for (const auto* token : {&bos_token, &eos_token, &pad_token, &unk_token})
    if (*token) contents.insert(**token);
  for (const AddedToken& token : added_tokens)
    if (token.special) contents.insert(token.content);
  return contents;
}

TokenizerConfig load_tokenizer_config(const std::filesystem::path& model_dir) {
  TokenizerConfig config;
  const auto read = [&](const char* name, auto&& reader) {
    const std::filesystem::path path = model_dir / name;
    if (!std::filesystem::exists(path)) return;
    const json document = parse_json(read_text_file(path, kMaxConfigBytes), path.string());
    JsonObject object(document, path.string());
    reader(document, object);
  };
  read("tokenizer_config.json",
       [&](const json&, JsonObject& object) { read_tokenizer_config(config, object); });
  read("special_tokens_map.json", [&](const json&, JsonObject& object) { read_token_names(config, object); });
  read("added_tokens.json",
       [&](const json& document, JsonObject& object) { read_added_tokens(config, document, object); });
  return config;
}

}  // namespace moge::text
