#include "text/tokenizer_json.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"

namespace moge::text {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 16;  // of sequences in sequences
constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max() - 1;

const std::string& require_string(const json& value, const std::string& where) {
  check<FileError>(value.is_string(), where, ": expected a string, got ", json_excerpt(value));
  return value.get_ref<const std::string&>();
}

int32_t require_id(const json& value, const std::string& where) {
  const bool fits = value.is_number_integer() && value >= 0 && value <= kMaxId;
  check<FileError>(fits, where, ": expected a token id, got ", json_excerpt(value));
  return value.get<int32_t>();
}

const json& require_array(JsonObject& object, const char* key) {
  const json* value = object.find(key);
  if (value == nullptr) object.throw_missing(key);
  if (!value->is_array()) object.throw_wrong(key, "an array");
  return *value;
}

std::pair<std::string, std::string> parse_merge(const json& entry, const std::string& where) {
  if (entry.is_array()) {
    check<FileError>(entry.size() == 2, where, ": expected two tokens, got ", json_excerpt(entry));
    return {require_string(entry[0], where), require_string(entry[1], where)};
  }
  const std::string& line = require_string(entry, where);
  const size_t space = line.find(' ');
  const bool two = space != std::string::npos && line.find(' ', space + 1) == std::string::npos;
  check<FileError>(two, where, ": expected two tokens with a space between, got ", json_excerpt(entry));
  return {line.substr(0, space), line.substr(space + 1)};
}

BpeModelSpec parse_model(const json& value, const std::string& where) {
  JsonObject object(value, where);
  // Old files leave the type out of a BPE model.
  const std::string type = object.text("type").value_or("BPE");
  check<FileError>(type == "BPE", where, ": model type \"", type, "\" is not supported, only BPE is");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    check<FileError>(object.text(key).value_or("").empty(), where, ": ", key, " is not supported");
  check<FileError>(object.number("dropout").value_or(0) == 0, where, ": dropout is not supported");
  BpeModelSpec spec;
  spec.unk_token = object.text("unk_token");
  spec.fuse_unk = object.boolean("fuse_unk").value_or(false);
  spec.byte_fallback = object.boolean("byte_fallback").value_or(false);
  spec.ignore_merges = object.boolean("ignore_merges").value_or(false);
  const json* vocab = object.find("vocab");
  if (vocab == nullptr) object.throw_missing("vocab");
  if (!vocab->is_object()) object.throw_wrong("vocab", "an object of tokens and ids");
  spec.vocab.reserve(vocab->size());
  for (const auto& [piece, id] : vocab->items())
    spec.vocab.emplace_back(piece, require_id(id, where + ": vocab"));
  const json& merges = require_array(object, "merges");
  spec.merges.reserve(merges.size());
  for (const json& entry : merges) spec.merges.push_back(parse_merge(entry, where + ": merges"));
  object.refuse_unread();  // it may change what the model makes of a text
  return spec;
}

void parse_template(TokenizerJson& file, JsonObject& object) {
  const std::string& where = object.where();
  const json* special_tokens = object.find("special_tokens");
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  bool text_seen = false;
  for (const json& entry : require_array(object, "single")) {
    JsonObject item(entry, where + ": single");
    if (item.has("Sequence")) {
      check<FileError>(!text_seen, where, ": single: the text stands twice in the template");
      text_seen = true;
      continue;
    }
    const json* special = item.find("SpecialToken");
    if (special == nullptr) item.throw_missing("SpecialToken");
    JsonObject named(*special, where + ": SpecialToken");
    const std::string name = named.require(named.text("id"), "id");
    check<FileError>(
        special_tokens != nullptr && special_tokens->is_object() && special_tokens->contains(name), where,
        ": the template's \"", name, "\" is not in special_tokens");
    JsonObject token((*special_tokens)[name], where + ": special_tokens");
    for (const json& id : require_array(token, "ids"))
      (text_seen ? suffix : prefix).push_back(require_id(id, where + ": special_tokens"));
  }
  check<FileError>(text_seen, where, ": single: the template has no place for the text");
  // In a sequence, a later template goes around what the earlier ones made.
  file.prefix.insert(file.prefix.begin(), prefix.begin(), prefix.end());
  file.suffix.insert(file.suffix.end(), suffix.begin(), suffix.end());
  file.has_template = true;
}

void parse_post_processor(TokenizerJson& file, const json& value, const std::string& where, int depth) {
  check<FileError>(depth < kMaxDepth, where, ": more than ", kMaxDepth, " nested sequences");
  JsonObject object(value, where);
  const std::string type = object.require(object.text("type"), "type");
  if (type == "Sequence") {
    for (const json& entry : require_array(object, "processors"))
      parse_post_processor(file, entry, where, depth + 1);
  } else if (type == "TemplateProcessing") {
    parse_template(file, object);
  } else {  // ByteLevel only moves offsets, which we don't have
    check<FileError>(type == "ByteLevel", where, ": post-processor \"", type,
                     "\" is not supported (TemplateProcessing, ByteLevel, Sequence are)");
  }
}

}  // namespace

AddedToken parse_added_token(const json& value, const std::string& where) {
  JsonObject object(value, where);
  AddedToken token;
  const json* id = object.find("id");
  if (id != nullptr) token.id = require_id(*id, where);
  token.content = object.require(object.text("content"), "content");
  token.special = object.boolean("special").value_or(false);
  token.lstrip = object.boolean("lstrip").value_or(false);
  token.rstrip = object.boolean("rstrip").value_or(false);
  token.single_word = object.boolean("single_word").value_or(false);
  token.normalized = object.boolean("normalized").value_or(!token.special);
  return token;
}

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& where) {
  const json document = parse_json(text, where);
  JsonObject object(document, where);
  const auto part = [&](const char* key) { return str(where, ": ", key); };
  for (const char* key : {"truncation", "padding"})
    if (object.has(key)) log_warning(where, ": \"", key, "\" is for batches of texts and is ignored");
  const json* decoder = object.find("decoder");
  if (decoder == nullptr) object.throw_missing("decoder");
  TokenizerJson file{.added_tokens = {},
                     .normalizer = {},
                     .pre_tokenizer = {},
                     .model = {},
                     .decoder = TokenDecoder(*decoder, part("decoder")),
                     .prefix = {},
                     .suffix = {}};
  const json* model = object.find("model");
  if (model == nullptr) object.throw_missing("model");
  file.model = parse_model(*model, part("model"));
  if (object.has("added_tokens")) {
    for (const json& entry : require_array(object, "added_tokens")) {
      file.added_tokens.push_back(parse_added_token(entry, part("added_tokens")));
      check<FileError>(file.added_tokens.back().id >= 0, part("added_tokens"), ": \"",
                       file.added_tokens.back().content, "\" has no id");
    }
  }
  if (const json* normalizer = object.find("normalizer"))
    file.normalizer = Normalizer(*normalizer, part("normalizer"));
  if (const json* pre_tokenizer = object.find("pre_tokenizer"))
    file.pre_tokenizer = PreTokenizer(*pre_tokenizer, part("pre_tokenizer"));
  if (const json* post_processor = object.find("post_processor"))
    parse_post_processor(file, *post_processor, part("post_processor"), 0);
  return file;
}

}  // namespace moge::text
