// The file format tokenizer.json (Hugging Face tokenizers, version "1.0"), parsed into the parts that work.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe_model.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"

namespace moge::text {

/// Field names are the file's keys. "truncation" and "padding" are for batches: a warning says that
/// they are ignored.
struct TokenizerJson {
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  BpeModelSpec model;
  TokenDecoder decoder;
  /// The post-processor's template for one text: ids before and after it.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  bool has_template = false;
};

/// FileError, beginning with `where`, on broken JSON or on a component that is not supported, by name.
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& where);

/// The fields of an AddedToken object; its id is that of the key "id", or -1.
AddedToken parse_added_token(const nlohmann::json& json, const std::string& where);

}  // namespace moge::text
