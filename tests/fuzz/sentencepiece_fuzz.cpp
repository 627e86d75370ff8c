// Any bytes are a model that is refused with a FileError, or one that encodes and decodes: what the library
// behind it would read out of bounds must be refused before the library sees it.
#include <cstdint>
#include <string>

#include "core/error.h"
#include "text/sentencepiece_tokenizer.h"
#include "text/tokenizer_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const moge::text::SentencePieceTokenizer tokenizer(std::string(reinterpret_cast<const char*>(data), size),
                                                       {}, "fuzz");
    const std::string text = "  it's 12 [unused9]</s> \xE4\xB8\xAD e\xCC\x81\n\n ___ \xFF";
    tokenizer.decode(tokenizer.encode(text));
    tokenizer.decode(tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}),
                     {.skip_special_tokens = true, .keep_invalid_bytes = true});
  } catch (const moge::FileError&) {
  }
  return 0;
}
