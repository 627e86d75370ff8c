// Regular expressions of tokenizer.json (Oniguruma, Ruby syntax) run by PCRE2's JIT compiler.
#pragma once
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace moge::text {

/// What one thread needs to run any Regex.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  pcre2_real_match_data_8* match_data_;
  pcre2_real_match_context_8* context_;
  pcre2_real_jit_stack_8* stack_;
};

/// A compiled pattern; const and thread-safe.
class Regex {
 public:
  struct Match {
    size_t begin;
    size_t end;
  };

  /// Oniguruma's meaning of the pattern (\s, \w and the line anchors differ from PCRE2's and are rewritten).
  /// FileError, beginning with `where`, if it is broken or uses what we can't express.
  Regex(std::string_view pattern, const std::string& where);

  /// The first match at or after `start` in valid UTF-8; false if there is none. Error when the pattern
  /// backtracks beyond all reason.
  bool find(std::string_view text, size_t start, RegexScratch& scratch, Match& match) const;

  /// Calls on_span(span, is_match) for the matches and the text between them, in order, covering the whole
  /// text.
  template <class OnSpan>
  void for_each_span(std::string_view text, RegexScratch& scratch, OnSpan&& on_span) const {
    size_t done = 0;
    size_t from = 0;
    Match match{};
    while (from <= text.size() && find(text, from, scratch, match)) {
      if (match.begin > done) on_span(text.substr(done, match.begin - done), false);
      if (match.end > match.begin) on_span(text.substr(match.begin, match.end - match.begin), true);
      done = match.end;
      from = match.end > match.begin ? match.end : next_character(text, match.end);
    }
    if (done < text.size()) on_span(text.substr(done), false);
  }

 private:
  static size_t next_character(std::string_view text, size_t at);

  std::string where_;
  std::shared_ptr<pcre2_real_code_8> code_;
};

}  // namespace moge::text
