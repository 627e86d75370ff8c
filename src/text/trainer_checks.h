// What every tokenizer trainer checks before it reads a text.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moge::text {

/// UsageError for a special token that is empty, not UTF-8, there twice or one of `own`, which are the tokens
/// that the tokenizer has whatever the text; and for a vocab_size without room for both.
void check_vocabulary_options(int32_t vocab_size, const std::vector<std::string>& special_tokens,
                              const std::vector<std::string>& own);

}  // namespace moge::text
