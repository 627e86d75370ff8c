// tokenizer.json from anywhere: a FileError or a tokenizer that encodes and decodes. The input is a file, or
// the file and a text after a zero byte.
#include <string_view>

#include "core/error.h"
#include "text/bpe_tokenizer.h"

namespace {
using moge::text::BpeTokenizer;

void encode_and_decode(const BpeTokenizer& tokenizer, std::string_view text) {
  try {
    const std::vector<int32_t> ids = tokenizer.encode(text);
    tokenizer.decode(ids);
    tokenizer.decode(tokenizer.encode(text, {.add_special_tokens = false, .parse_special = false}),
                     {.skip_special_tokens = true, .keep_invalid_bytes = true});
  } catch (const moge::Error&) {
    // A regular expression may give up on a text.
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), size);
  try {
    const BpeTokenizer tokenizer(moge::text::parse_tokenizer_json(input.substr(0, end), "fuzz"), {}, "fuzz");
    encode_and_decode(tokenizer, "it's 12 <eos>\xE4\xB8\xAD e\xCC\x81\n\n \xFF");
    encode_and_decode(tokenizer, input.substr(end));
  } catch (const moge::FileError&) {
  }
  return 0;
}
