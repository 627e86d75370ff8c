#include "text/token_decoder.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "text/byte_level.h"
#include "text/normalizer.h"

namespace moge::text {
namespace {

constexpr int kMaxDepth = 16;  // of sequences in sequences

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/// <0xE4> becomes its byte.
void byte_fallback(std::string& piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return;
  const int high = hex_digit(piece[3]);
  const int low = hex_digit(piece[4]);
  if (high >= 0 && low >= 0) piece = std::string(1, static_cast<char>(16 * high + low));
}

}  // namespace

TokenDecoder::TokenDecoder(const nlohmann::json& json, const std::string& where) {
  add(json, where, 0);
}

Detokenizer::Token TokenDecoder::decode(const std::string& piece, bool special) const {
  std::string bytes = piece;
  for (const Step& step : steps_) step(bytes);
  const bool leading_space = metaspace_ ? piece.starts_with(*metaspace_) : bytes.starts_with(' ');
  return {std::move(bytes), special, leading_space};
}

void TokenDecoder::add(const nlohmann::json& json, const std::string& where, int depth) {
  check<FileError>(depth < kMaxDepth, where, ": more than ", kMaxDepth, " nested sequences");
  JsonObject object(json, where);
  const std::string type = object.require(object.text("type"), "type");
  if (type == "Sequence") {
    const nlohmann::json* list = object.find("decoders");
    check<FileError>(list != nullptr && list->is_array(), where,
                     ": Sequence: expected an array \"decoders\"");
    for (const nlohmann::json& entry : *list) add(entry, where, depth + 1);
  } else if (type == "Fuse") {
    fused_ = true;
  } else if (type == "Strip") {
    const bool one_space = fused_ && object.text("content") == " " && object.integer("start") == 1 &&
                           object.integer("stop").value_or(0) == 0;
    check<FileError>(one_space, where, ": Strip other than one leading space after Fuse is not supported: ",
                     json_excerpt(json));
    first_space_ = Detokenizer::FirstSpace::kStripOne;
  } else if (fused_) {
    throw FileError(str(where, ": ", type, " after Fuse is not supported"));
  } else if (type == "ByteLevel") {
    steps_.emplace_back([](std::string& piece) {
      if (auto bytes = byte_level_decode(piece)) piece = std::move(*bytes);
    });
  } else if (type == "ByteFallback") {
    steps_.emplace_back(byte_fallback);
    invalid_utf8_ = Detokenizer::InvalidUtf8::kPerByte;
  } else if (type == "Metaspace") {
    const std::string replacement = object.text("replacement").value_or("\u2581");
    const bool add_prefix =
        object.boolean("add_prefix_space").value_or(true);  // before prepend_scheme existed
    const std::string scheme = object.text("prepend_scheme").value_or(add_prefix ? "always" : "never");
    if (scheme != "never") first_space_ = Detokenizer::FirstSpace::kStripOne;
    metaspace_ = replacement;
    steps_.emplace_back([replacement](std::string& piece) { replace_all(piece, replacement, " "); });
  } else if (type == "Replace") {
    const nlohmann::json* pattern = object.find("pattern");
    if (pattern == nullptr) object.throw_missing("pattern");
    JsonObject kind(*pattern, where + ": pattern");
    const auto literal = kind.text("String");
    check<FileError>(literal.has_value(), where, ": Replace by a regular expression is not supported");
    const std::string content = object.require(object.text("content"), "content");
    steps_.emplace_back(
        [from = *literal, content](std::string& piece) { replace_all(piece, from, content); });
  } else {
    throw FileError(
        str(where, ": decoder \"", type,
            "\" is not supported (ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, Sequence are)"));
  }
}

}  // namespace moge::text
