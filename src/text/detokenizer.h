// Ids back to text, whole or streamed. Every decoder that we support is a table of bytes per token, a rule
// for the first token's leading space and a rule for bytes that are not UTF-8, so one class serves all
// tokenizers and a stream of pieces always adds up to the whole decode.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moge::text {

struct DecodeOptions {
  /// Leave out special tokens (bos, eos, chat markers).
  bool skip_special_tokens = false;
  /// Return bytes that are not UTF-8 as they are (a byte-level model round-trips any file) instead of U+FFFD.
  bool keep_invalid_bytes = false;
};

class Detokenizer {
 public:
  /// What an invalid sequence becomes: one U+FFFD per maximal invalid part (Unicode 3.9, Rust's
  /// from_utf8_lossy: byte-level BPE), or one per byte (SentencePiece's byte fallback).
  enum class InvalidUtf8 { kPerSequence, kPerByte };

  /// What a decode's start does with the spaces that its tokens begin with: keep them, take one away (the
  /// dummy prefix of encoding), or take one from every token until some text is there.
  enum class FirstSpace { kKeep, kStripOne, kStripUntilText };

  struct Token {
    std::string bytes;
    bool special = false;
    bool leading_space = false;  // bytes begins with a space that FirstSpace may take away
  };

  Detokenizer() = default;
  Detokenizer(std::vector<Token> tokens, FirstSpace first_space, InvalidUtf8 invalid)
      : tokens_(std::move(tokens)), first_space_(first_space), invalid_(invalid) {}

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  /// RequestError outside 0..size()-1.
  const Token& token(int32_t id) const;
  bool is_special(int32_t id) const { return token(id).special; }
  FirstSpace first_space() const { return first_space_; }
  InvalidUtf8 invalid_utf8() const { return invalid_; }

 private:
  std::vector<Token> tokens_;
  FirstSpace first_space_ = FirstSpace::kKeep;
  InvalidUtf8 invalid_ = InvalidUtf8::kPerSequence;
};

/// Turns ids into text as they come: a character whose bytes are spread over several tokens is held back
/// until it is whole. The pieces of push() and finish(), joined, are exactly the decode of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Detokenizer& detokenizer, const DecodeOptions& options = {})
      : detokenizer_(&detokenizer), options_(options) {}

  /// The text that this id completes: valid UTF-8, maybe empty (or raw bytes with keep_invalid_bytes).
  std::string push(int32_t id);
  /// What was held back, as U+FFFD: the end of a stream that stopped inside a character. Resets to the start.
  std::string finish();

 private:
  void flush(bool at_end, std::string& out);

  const Detokenizer* detokenizer_;
  DecodeOptions options_;
  std::string pending_;  // bytes not emitted yet: an incomplete character
  bool at_start_ = true;
};

}  // namespace moge::text
