#include "sim/speculation.h"

#include <charconv>

#include "core/error.h"

namespace moge::sim {

Speculation parse_speculation(const std::string& text) {
  constexpr int64_t kMostDrafts = 16;
  Speculation s;
  const char* end = text.data() + text.size();
  const auto count = std::from_chars(text.data(), end, s.draft_tokens);
  const bool comma = count.ec == std::errc{} && count.ptr != end && *count.ptr == ',';
  const auto share = comma ? std::from_chars(count.ptr + 1, end, s.acceptance)
                           : std::from_chars_result{end, std::errc::invalid_argument};
  check<UsageError>(share.ec == std::errc{} && share.ptr == end && s.draft_tokens >= 1 &&
                        s.draft_tokens <= kMostDrafts && s.acceptance >= 0 && s.acceptance <= 1,
                    "speculation '", text, "': expected K,ACCEPT: draft tokens from 1 to ", kMostDrafts,
                    " and the share of them that is right, as in 1,0.7");
  return s;
}

}  // namespace moge::sim
