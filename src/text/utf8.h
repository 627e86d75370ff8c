// UTF-8, one character at a time (Unicode 15, table 3-7: no overlong forms, no surrogates, up to U+10FFFF).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

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

/// Unicode's White_Space property (regular expressions' \s outside PCRE2, Rust's char::is_whitespace).
bool is_white_space(char32_t code_point);
/// A word character of UTS 18 (regular expressions' \w): letters, marks, decimal digits, connectors.
bool is_word(char32_t code_point);

void append_utf8(char32_t code_point, std::string& out);

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace moge::text
