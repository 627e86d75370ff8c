// The text of a generation as it grows: whole characters, and nothing of a stop string.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace moge::engine {

/// An id that the tokenizer has no piece for gives no text: a model's rows are often padded beyond them, and
/// now and then one of those is drawn.
class TextStream {
 public:
  /// `continued` are the tokens that the text goes on from: its first word then keeps the space that a text
  /// of its own would begin without.
  TextStream(const text::Tokenizer& tokenizer, std::vector<std::string> stop_strings,
             std::span<const int32_t> continued = {});

  /// The text that this token makes certain; what may be the beginning of a stop string is held back.
  std::string push(int32_t token);
  /// What was held back when the tokens ended; nothing after a stop string.
  std::string finish();
  /// A stop string came. The text ends before it.
  bool stopped() const { return stopped_; }

 private:
  std::string release(bool at_end);

  const int32_t num_pieces_;
  text::StreamDecoder decoder_;
  std::vector<std::string> stop_strings_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace moge::engine
