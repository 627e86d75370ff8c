// UTF-8, one character at a time (Unicode 15, table 3-7: no overlong forms, no surrogates, up to U+10FFFF).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.h"

namespace moge::text {

/// One step of a scan. length is at least 1 for a non-empty text.
struct Utf8Step {
  int length;           // of the character, or of the maximal invalid part (what one U+FFFD replaces)
  bool valid;           // a whole well-formed character
  bool incomplete;      // invalid only because the text ends: more bytes may complete it
  char32_t code_point;  // if valid
};

/// The character or invalid part at the front of a non-empty text.
Utf8Step utf8_step(std::string_view text);

/// The length of the longest valid prefix.
size_t utf8_valid_prefix(std::string_view text);

/// Throws an E that begins with `where` and gives the offset of the first byte that is not UTF-8.
template <class E>
void check_utf8(std::string_view text, const std::string& where) {
  const size_t valid = utf8_valid_prefix(text);
  check<E>(valid == text.size(), where, ": expected UTF-8, got an invalid byte at offset ", valid);
}

/// Calls on_run(part, valid) for the maximal valid and invalid parts of the text, in order.
template <class OnRun>
void for_each_utf8_run(std::string_view text, OnRun&& on_run) {
  while (!text.empty()) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid > 0) on_run(text.substr(0, valid), true);
    text.remove_prefix(valid);
    size_t invalid = 0;
    while (invalid < text.size()) {
      const Utf8Step step = utf8_step(text.substr(invalid));
      if (step.valid) break;
      invalid += static_cast<size_t>(step.length);
    }
    if (invalid > 0) on_run(text.substr(0, invalid), false);
    text.remove_prefix(invalid);
  }
}

/// Unicode's White_Space property (regular expressions' \s outside PCRE2, Rust's char::is_whitespace).
bool is_white_space(char32_t code_point);
/// A word character of UTS 18 (regular expressions' \w): letters, marks, decimal digits, connectors,
/// the two joiners.
bool is_word(char32_t code_point);

void append_utf8(char32_t code_point, std::string& out);

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace moge::text
