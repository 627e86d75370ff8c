#include "text/tokenizer.h"

#include "core/error.h"
#include "core/log.h"
#include "text/added_tokens.h"
#include "text/bpe_tokenizer.h"
#include "text/sentencepiece_tokenizer.h"
#include "text/tokenizer_config.h"

namespace moge::text {

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  StreamDecoder decoder(detokenizer(), options);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  text += decoder.finish();
  return text;
}

std::string Tokenizer::shield(std::string_view text) const {
  const std::string plain = without_shields(text);
  std::string shielded;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (special_at(std::string_view(plain).substr(i)) > 0) shielded += kShield;
    shielded += plain[i];
  }
  return shielded;
}

void Tokenizer::find_special_ids(const TokenizerConfig& config, const SpecialIds& unnamed,
                                 const std::string& where) {
  const auto id_of = [&](const std::optional<std::string>& name, std::optional<int32_t> otherwise) {
    return name ? piece_to_id(*name) : otherwise;
  };
  special_ids_ = {id_of(config.bos_token, unnamed.bos), id_of(config.eos_token, unnamed.eos),
                  id_of(config.pad_token, unnamed.pad), id_of(config.unk_token, unnamed.unk)};
  if (config.bos_token && !special_ids_.bos)
    log_warning(where, ": bos_token \"", *config.bos_token,
                "\" is not in the vocabulary; no text begins with it");
  if (config.eos_token && !special_ids_.eos)
    log_warning(where, ": eos_token \"", *config.eos_token,
                "\" is not in the vocabulary; no text ends at it");
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir) {
  if (std::filesystem::exists(model_dir / "tokenizer.json")) return load_bpe_tokenizer(model_dir);
  if (std::filesystem::exists(model_dir / "tokenizer.model")) return load_sentencepiece_tokenizer(model_dir);
  throw FileError(str(model_dir.string(), ": no tokenizer: expected tokenizer.json or tokenizer.model"));
}

void check_vocabulary(const Tokenizer& tokenizer, const std::filesystem::path& dir,
                      int64_t model_vocab_size) {
  check<FileError>(tokenizer.vocab_size() <= model_vocab_size, dir.string(),
                   ": tokenizer: expected at most as many tokens as the model's vocab_size = ",
                   model_vocab_size, ", got ", tokenizer.vocab_size());
}

}  // namespace moge::text
