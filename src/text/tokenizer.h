// Text to token ids and back. One interface over SentencePiece models (tokenizer.model) and Hugging Face
// byte-level BPE files (tokenizer.json); load_tokenizer() picks by what the model's folder holds.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/detokenizer.h"

namespace moge::text {

struct TokenizerConfig;

/// The ids that frame a text. Absent ones are nullopt: many models have no bos or pad.
struct SpecialIds {
  std::optional<int32_t> bos;
  std::optional<int32_t> eos;
  std::optional<int32_t> pad;
  std::optional<int32_t> unk;
};

struct EncodeOptions {
  /// Frame the text as the model's files say (tokenizer.json's post_processor, or add_bos_token /
  /// add_eos_token of tokenizer_config.json). Off for a rendered chat template, which writes its own bos.
  bool add_special_tokens = true;
  /// A special token's string inside the text ("<|im_end|>", "[unused10]") becomes its id. Off for text from
  /// users and corpora, which must not be able to forge the end of a turn or of a document.
  bool parse_special = true;
  /// The text was made of parts from shield(): what they shield is read as if parse_special were off, and the
  /// marks are dropped.
  bool shielded = false;
};

/// Const and safe to share between threads after construction.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// The ids of the text. Any byte string is accepted; what invalid UTF-8 becomes is the class's documented
  /// rule.
  virtual std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;

  /// A user's text for a template whose result is encoded with parse_special and `shielded`: it has a mark
  /// (U+FDD0) before each special token's string, and none elsewhere. So a text without such strings stays as
  /// it is.
  std::string shield(std::string_view text) const;

  /// The text of the ids. RequestError names an id outside 0..vocab_size()-1.
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;

  /// One more than the largest id, added tokens included. A model's embedding may be padded beyond it.
  virtual int32_t vocab_size() const = 0;
  /// The token as the vocabulary writes it ("▁the", "Ġthe", "<0x0A>"); empty for an id that is a hole between
  /// others. RequestError outside 0..vocab_size()-1.
  virtual std::string id_to_piece(int32_t id) const = 0;
  virtual std::optional<int32_t> piece_to_id(std::string_view piece) const = 0;

  bool is_special(int32_t id) const { return detokenizer().is_special(id); }
  const SpecialIds& special_ids() const { return special_ids_; }
  /// How ids become bytes; what a StreamDecoder needs.
  virtual const Detokenizer& detokenizer() const = 0;

 protected:
  /// The length of the longest special token's string that the text begins with, or 0.
  virtual size_t special_at(std::string_view text) const = 0;
  /// Sets special_ids_ to those of the config's names, or where it has none to `unnamed`. Warns, beginning
  /// with `where`, of a bos or eos that the vocabulary lacks.
  void find_special_ids(const TokenizerConfig& config, const SpecialIds& unnamed, const std::string& where);

  SpecialIds special_ids_;
};

/// Loads tokenizer.json if the folder has one, else tokenizer.model, with tokenizer_config.json,
/// special_tokens_map.json and added_tokens.json beside it. FileError says which file, what and where.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir);

/// FileError if `tokenizer`, which came from `dir`, has ids that a model of so many rows does not know.
void check_vocabulary(const Tokenizer& tokenizer, const std::filesystem::path& dir, int64_t model_vocab_size);

}  // namespace moge::text
