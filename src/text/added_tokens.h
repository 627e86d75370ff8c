// Added tokens: strings that become one id before the model sees the text (Hugging Face's AddedToken).
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace moge::text {

/// The fields of an entry of tokenizer.json's added_tokens or tokenizer_config.json's added_tokens_decoder.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;       // swallows the white space after it
  bool single_word = false;  // only when no word character touches it
  bool normalized = false;   // matched in the normalised text instead of the raw one
};

/// A part of a text: ordinary (id -1), or the place of an added token.
struct Segment {
  std::string_view text;
  int32_t id = -1;
};

/// The mark that Tokenizer::shield() puts before a special token's string: U+FDD0, which no text should have.
inline constexpr std::string_view kShield = "\xEF\xB7\x90";
std::string without_shields(std::string_view text);

/// Finds added tokens in a text: leftmost first, the longest at each place.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  /// Tokens with empty content never match.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  /// Appends the parts of the text in order, none of them empty; with parse_special off, special tokens'
  /// strings stay ordinary text, and if `shielded`, those after kShield do.
  void split(std::string_view text, bool parse_special, bool shielded, std::vector<Segment>& out) const;
  /// The length of the longest special token's string that the text begins with, or 0.
  size_t special_at(std::string_view text) const;
  bool empty() const { return tokens_.empty(); }

 private:
  const AddedToken* match_at(std::string_view text, bool only_special = false) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t> by_content_;          // index into tokens_
  std::array<std::vector<size_t>, 256> lengths_by_first_byte_;  // of the contents, longest first
};

}  // namespace moge::text
