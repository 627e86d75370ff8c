#include "text/trainer_checks.h"

#include <unordered_set>

#include "core/error.h"
#include "text/utf8.h"

namespace moge::text {

void check_vocabulary_options(int32_t vocab_size, const std::vector<std::string>& special_tokens,
                              const std::vector<std::string>& own) {
  const std::unordered_set<std::string> reserved(own.begin(), own.end());
  std::unordered_set<std::string> seen;
  for (const std::string& token : special_tokens) {
    check<UsageError>(!token.empty(), "a special token is empty, expected text");
    check_utf8<UsageError>(token, "a special token");
    check<UsageError>(!reserved.contains(token), "special token \"", token,
                      "\": the tokenizer has a token of that name already");
    check<UsageError>(seen.insert(token).second, "special token \"", token, "\" is there twice");
  }
  const size_t smallest = own.size() + special_tokens.size();
  check<UsageError>(vocab_size >= static_cast<int64_t>(smallest), "vocab_size ", vocab_size,
                    ": expected at least ", smallest, " (", own.size(), " that every text needs and ",
                    special_tokens.size(), " special tokens)");
}

}  // namespace moge::text
