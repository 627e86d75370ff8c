#include "engine/text_stream.h"

#include <algorithm>

namespace moge::engine {

TextStream::TextStream(const text::Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                       std::span<const int32_t> continued)
    : num_pieces_(tokenizer.detokenizer().size()),
      decoder_(tokenizer.detokenizer(), {.skip_special_tokens = true}),
      stop_strings_(std::move(stop_strings)) {
  std::erase(stop_strings_, "");
  for (const int32_t token : continued) decoder_.push(token);
}

std::string TextStream::push(int32_t token) {
  if (stopped_) return "";
  if (token < num_pieces_) held_ += decoder_.push(token);
  return release(false);
}

std::string TextStream::finish() {
  if (stopped_) return "";
  held_ += decoder_.finish();
  return release(true);
}

std::string TextStream::release(bool at_end) {
  size_t end = std::string::npos;
  for (const std::string& stop : stop_strings_) end = std::min(end, held_.find(stop));
  stopped_ = end != std::string::npos;
  if (!stopped_) {
    // The longest end of the text that begins some stop string stays.
    size_t keep = 0;
    for (const std::string& stop : stop_strings_) {
      for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep && !at_end; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
    end = held_.size() - keep;
  }
  std::string text = held_.substr(0, end);
  held_ = stopped_ ? "" : held_.substr(end);
  return text;
}

}  // namespace moge::engine
