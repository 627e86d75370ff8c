#include "text/detokenizer.h"

#include "core/error.h"
#include "text/utf8.h"

namespace moge::text {

const Detokenizer::Token& Detokenizer::token(int32_t id) const {
  check<RequestError>(id >= 0 && id < size(), "token id ", id, " is outside the vocabulary, expected 0..",
                      size() - 1);
  return tokens_[static_cast<size_t>(id)];
}

std::string StreamDecoder::push(int32_t id) {
  std::string out;
  const Detokenizer::Token& token = detokenizer_->token(id);
  if (token.special && options_.skip_special_tokens) return out;
  std::string_view bytes = token.bytes;
  using FirstSpace = Detokenizer::FirstSpace;
  const FirstSpace rule = detokenizer_->first_space();
  const bool strip = at_start_ && token.leading_space && rule != FirstSpace::kKeep;
  if (strip) bytes.remove_prefix(1);
  at_start_ = at_start_ && bytes.empty() && (!strip || rule == FirstSpace::kStripUntilText);
  pending_ += bytes;
  flush(false, out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  flush(true, out);
  at_start_ = true;
  return out;
}

void StreamDecoder::flush(bool at_end, std::string& out) {
  if (options_.keep_invalid_bytes) {
    out += pending_;
    pending_.clear();
    return;
  }
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const size_t valid = utf8_valid_prefix(rest);
    out += rest.substr(0, valid);
    rest.remove_prefix(valid);
    if (rest.empty()) break;
    const Utf8Step step = utf8_step(rest);
    if (step.incomplete && !at_end) break;
    const int invalid = detokenizer_->invalid_utf8() == Detokenizer::InvalidUtf8::kPerByte ? 1 : step.length;
    out += kReplacementCharacter;
    rest.remove_prefix(static_cast<size_t>(invalid));
  }
  pending_.erase(0, pending_.size() - rest.size());
}

}  // namespace moge::text
