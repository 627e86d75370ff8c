// The small JSON files beside a tokenizer: tokenizer_config.json, special_tokens_map.json, added_tokens.json.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "text/added_tokens.h"

namespace moge::text {

/// Field names are the files' keys.
struct TokenizerConfig {
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::optional<std::string> pad_token;
  std::optional<std::string> unk_token;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  /// Llama's old way: every text between added tokens gets SentencePiece's dummy prefix, not only the first.
  bool legacy = true;
  /// added_tokens_decoder, added_tokens.json and additional_special_tokens; id is -1 where only the string is
  /// given.
  std::vector<AddedToken> added_tokens;

  /// The bos, eos, pad and unk tokens and the added tokens marked special.
  std::unordered_set<std::string> special_contents() const;
};

/// Reads what is there; every file is optional. FileError on broken JSON or values of the wrong type.
TokenizerConfig load_tokenizer_config(const std::filesystem::path& model_dir);

}  // namespace moge::text
