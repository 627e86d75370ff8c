#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/error.h"

namespace moge::text {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr size_t kJitStackStart = 64 << 10;
constexpr size_t kJitStackMax = 32 << 20;

// The inside of a class. White_Space: PCRE2's own \s has U+180E besides. Word: PCRE2's \w lacks marks and
// more.
constexpr std::string_view kSpaceClass = R"(\t-\r\x{85}\p{Z})";
constexpr std::string_view kWordClass = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

std::string error_text(int code) {
  char message[256] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof(message));
  return message;
}

/// Rewrites what Oniguruma and PCRE2 read differently; refuses what cannot be rewritten.
std::string to_pcre2(std::string_view pattern, const std::string& where) {
  const auto refuse = [&](std::string_view what) {
    throw FileError(str(where, ": regular expression ", pattern, ": ", what, " is not supported"));
  };
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      const std::string_view inside = escaped == 's' || escaped == 'S'   ? kSpaceClass
                                      : escaped == 'w' || escaped == 'W' ? kWordClass
                                                                         : std::string_view{};
      if (inside.empty()) {
        if (escaped == 'h' || escaped == 'H') refuse("\\h");
        out += {'\\', escaped};
      } else if (escaped == 's' || escaped == 'w') {
        out += in_class ? std::string(inside) : str('[', inside, ']');
      } else {
        if (in_class) refuse("a negated class inside a class");
        out += str("[^", inside, ']');
      }
      continue;
    }
    if (in_class) {
      if (c == '&' && pattern.substr(i).starts_with("&&")) refuse("an intersection of classes");
      if (c == '[' && !pattern.substr(i).starts_with("[:")) refuse("a class inside a class");
      if (c == '[') {  // [:name:] is copied whole, so that its bracket does not end the class
        const size_t end = pattern.find(":]", i);
        if (end == std::string_view::npos) refuse("an unfinished [:name:]");
        out += pattern.substr(i, end - i);
        i = end;
        out += ':';
        out += pattern[++i];
        continue;
      }
      if (c == ']') in_class = false;
    } else if (c == '[') {
      in_class = true;
      out += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];  // a literal ]
      continue;
    }
    out += c;
  }
  return out;
}

}  // namespace

RegexScratch::RegexScratch()
    : match_data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      stack_(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)) {
  if (match_data_ == nullptr || context_ == nullptr)
    throw OutOfMemoryError("no memory to match a regular expression");
  pcre2_set_match_limit(context_, kMatchLimit);
  if (stack_ != nullptr) pcre2_jit_stack_assign(context_, nullptr, stack_);
}

RegexScratch::~RegexScratch() {
  pcre2_jit_stack_free(stack_);
  pcre2_match_context_free(context_);
  pcre2_match_data_free(match_data_);
}

Regex::Regex(std::string_view pattern, const std::string& where) : where_(where) {
  check<FileError>(pattern.size() <= kMaxPatternBytes, where, ": a regular expression of ", pattern.size(),
                   " bytes, expected at most ", kMaxPatternBytes);
  const std::string source = to_pcre2(pattern, where);
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Ruby's ^ and $ always work at every line.
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                            &offset, context.get()),
              &pcre2_code_free);
  check<FileError>(code_ != nullptr, where, ": regular expression ", pattern, ": ", error_text(error),
                   " at offset ", offset);
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, pcre2_match interprets
}

bool Regex::find(std::string_view text, size_t start, RegexScratch& scratch, Match& match) const {
  const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                                 PCRE2_NO_UTF_CHECK, scratch.match_data_, scratch.context_);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  check<FileError>(result >= 0, where_, ": regular expression failed on a text of ", text.size(),
                   " bytes: ", error_text(result));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(scratch.match_data_);
  check<FileError>(bounds[0] <= bounds[1] && bounds[0] >= start, where_,
                   ": regular expression matched backwards (\\K)");
  match = {bounds[0], bounds[1]};
  return true;
}

size_t Regex::next_character(std::string_view text, size_t at) {
  ++at;
  while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) ++at;
  return at;
}

}  // namespace moge::text
