#include "text/tokenizer.h"

#include "core/error.h"
#include "text/bpe_tokenizer.h"
#include "text/sentencepiece_tokenizer.h"

namespace moge::text {

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  StreamDecoder decoder(detokenizer(), options);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  text += decoder.finish();
  return text;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir) {
  if (std::filesystem::exists(model_dir / "tokenizer.json")) return load_bpe_tokenizer(model_dir);
  if (std::filesystem::exists(model_dir / "tokenizer.model")) return load_sentencepiece_tokenizer(model_dir);
  throw FileError(str(model_dir.string(), ": no tokenizer: expected tokenizer.json or tokenizer.model"));
}

}  // namespace moge::text
