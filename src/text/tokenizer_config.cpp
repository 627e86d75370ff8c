#include "text/tokenizer_config.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace moge::text {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = int64_t{64} << 20;

std::optional<json> read_json_object(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    json document = json::parse(read_text_file(path, kMaxConfigBytes));
    check<FileError>(document.is_object(), path.string(), ": expected a JSON object");
    return document;
  } catch (const json::exception& e) {
    throw FileError(str(path.string(), ": broken JSON: ", e.what()));
  }
}

/// A token written as a string or as an AddedToken object; null and absent are the same.
std::optional<std::string> token_content(const json& document, const char* key) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return std::nullopt;
  if (found->is_object()) return found->at("content").get<std::string>();
  return found->get<std::string>();
}

AddedToken added_token(const json& entry, int32_t id) {
  AddedToken token;
  token.id = id;
  token.content = entry.at("content").get<std::string>();
  token.special = entry.value("special", false);
  token.lstrip = entry.value("lstrip", false);
  token.rstrip = entry.value("rstrip", false);
  token.single_word = entry.value("single_word", false);
  token.normalized = entry.value("normalized", !token.special);
  return token;
}

int32_t checked_id(int64_t id, const std::string& what) {
  check<FileError>(id >= 0 && id < std::numeric_limits<int32_t>::max(), what, ": token id ", id,
                   " is out of range");
  return static_cast<int32_t>(id);
}

void add_special_string(TokenizerConfig& config, const json& entry) {
  AddedToken token;
  token.special = true;
  if (entry.is_object()) {
    token = added_token(entry, -1);
    token.special = true;
  } else {
    token.content = entry.get<std::string>();
  }
  const auto same = std::find_if(config.added_tokens.begin(), config.added_tokens.end(),
                                 [&](const AddedToken& other) { return other.content == token.content; });
  if (same == config.added_tokens.end()) {
    config.added_tokens.push_back(token);
  } else {
    same->special = true;
  }
}

void read_token_names(TokenizerConfig& config, const json& document) {
  const auto fill = [&](std::optional<std::string>& token, const char* key) {
    if (!token) token = token_content(document, key);
  };
  fill(config.bos_token, "bos_token");
  fill(config.eos_token, "eos_token");
  fill(config.pad_token, "pad_token");
  fill(config.unk_token, "unk_token");
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const auto list = document.find(key);
    if (list == document.end() || list->is_null()) continue;
    for (const json& entry : *list) add_special_string(config, entry);  // an array, or an object's values
  }
}

void read_tokenizer_config(TokenizerConfig& config, const json& document, const std::string& path) {
  const auto flag = [&](const char* key) -> std::optional<bool> {
    const auto found = document.find(key);
    if (found == document.end() || found->is_null()) return std::nullopt;
    return found->get<bool>();
  };
  config.add_bos_token = flag("add_bos_token");
  config.add_eos_token = flag("add_eos_token");
  config.legacy = flag("legacy").value_or(true);
  const auto decoder = document.find("added_tokens_decoder");
  if (decoder != document.end()) {
    for (const auto& [key, entry] : decoder->items()) {
      const bool digits =
          !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
      check<FileError>(digits, path, ": added_tokens_decoder: expected a token id, got \"", key, '"');
      config.added_tokens.push_back(added_token(entry, checked_id(std::stol(key), path)));
    }
  }
  read_token_names(config, document);
}

void read_added_tokens(TokenizerConfig& config, const json& document, const std::string& path) {
  for (const auto& [content, id] : document.items()) {
    const auto known =
        std::find_if(config.added_tokens.begin(), config.added_tokens.end(),
                     [&, &name = content](const AddedToken& token) { return token.content == name; });
    const int32_t checked = checked_id(id.get<int64_t>(), path);
    if (known == config.added_tokens.end()) {
      AddedToken token;
      token.id = checked;
      token.content = content;
      config.added_tokens.push_back(token);
    } else if (known->id < 0) {
      known->id = checked;
    }
  }
}

}  // namespace

bool TokenizerConfig::is_special(std::string_view content) const {
  const auto named = [&](const std::optional<std::string>& token) { return token && *token == content; };
  return named(bos_token) || named(eos_token) || named(pad_token) || named(unk_token) ||
         std::any_of(added_tokens.begin(), added_tokens.end(),
                     [&](const AddedToken& token) { return token.special && token.content == content; });
}

TokenizerConfig load_tokenizer_config(const std::filesystem::path& model_dir) {
  TokenizerConfig config;
  const auto read = [&](const char* name, auto&& reader) {
    const std::filesystem::path path = model_dir / name;
    const std::optional<json> document = read_json_object(path);
    if (!document) return;
    try {
      reader(config, *document, path.string());
    } catch (const json::exception& e) {
      throw FileError(str(path.string(), ": ", e.what()));
    }
  };
  read("tokenizer_config.json", read_tokenizer_config);
  read("special_tokens_map.json", [](TokenizerConfig& into, const json& document, const std::string&) {
    read_token_names(into, document);
  });
  read("added_tokens.json", read_added_tokens);
  return config;
}

}  // namespace moge::text
