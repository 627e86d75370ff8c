#include "text/added_tokens.h"

#include <algorithm>
#include <functional>

#include "text/utf8.h"

namespace moge::text {
namespace {

bool starts_with_word(std::string_view text) {
  if (text.empty()) return false;
  const Utf8Step step = utf8_step(text);
  return step.valid && is_word(step.code_point);
}

/// The last character's first byte.
size_t last_character(std::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && text.size() - i < 4 && (static_cast<uint8_t>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && starts_with_word(text.substr(last_character(text)));
}

size_t leading_white_space(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const Utf8Step step = utf8_step(text.substr(i));
    if (!step.valid || !is_white_space(step.code_point)) break;
    i += static_cast<size_t>(step.length);
  }
  return i;
}

/// Where the white space at the text's end begins.
size_t trailing_white_space(std::string_view text) {
  while (!text.empty()) {
    const size_t last = last_character(text);
    const Utf8Step step = utf8_step(text.substr(last));
    if (!step.valid || !is_white_space(step.code_point)) break;
    text = text.substr(0, last);
  }
  return text.size();
}

}  // namespace

std::string without_shields(std::string_view text) {
  std::string plain;
  for (size_t at = text.find(kShield); at != std::string_view::npos; at = text.find(kShield)) {
    plain += text.substr(0, at);
    text.remove_prefix(at + kShield.size());
  }
  return plain += text;
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    by_content_.emplace(content, i);  // of equal ones the first counts
    lengths_by_first_byte_[static_cast<uint8_t>(content[0])].push_back(content.size());
  }
  for (std::vector<size_t>& lengths : lengths_by_first_byte_) {
    std::sort(lengths.begin(), lengths.end(), std::greater<>());
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

const AddedToken* AddedTokenMatcher::match_at(std::string_view text, bool only_special) const {
  if (text.empty()) return nullptr;
  for (const size_t length : lengths_by_first_byte_[static_cast<uint8_t>(text[0])]) {
    if (length > text.size()) continue;
    const auto found = by_content_.find(std::string(text.substr(0, length)));
    if (found != by_content_.end() && (!only_special || tokens_[found->second].special))
      return &tokens_[found->second];
  }
  return nullptr;
}

size_t AddedTokenMatcher::special_at(std::string_view text) const {
  const AddedToken* token = match_at(text, true);
  return token ? token->content.size() : 0;
}

void AddedTokenMatcher::split(std::string_view text, bool parse_special, bool shielded,
                              std::vector<Segment>& out) const {
  size_t done = 0;  // everything before is in out
  size_t at = 0;
  while (!tokens_.empty() && at < text.size()) {
    if (shielded && text.substr(at).starts_with(kShield)) {
      at += kShield.size();
      at += special_at(text.substr(at));
      continue;
    }
    const AddedToken* token = match_at(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + token->content.size();
    at = end;  // a match that is passed over below still uses up its text, as in Hugging Face's tokenizers
    if (token->special && !parse_special) continue;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (token->lstrip) begin = trailing_white_space(text.substr(0, begin));
    if (token->rstrip) end += leading_white_space(text.substr(end));
    begin = std::max(begin, done);
    end = std::max(end, begin);
    if (begin > done) out.push_back({text.substr(done, begin - done), -1});
    out.push_back({text.substr(begin, end - begin), token->id});
    done = end;
  }
  if (done < text.size()) out.push_back({text.substr(done), -1});
}

}  // namespace moge::text
