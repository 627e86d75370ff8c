#include "text/jinja_strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "text/utf8.h"

namespace moge::text::jinja {

namespace {

/// The first character; an invalid byte counts as U+FFFD and keeps its bytes.
struct Character {
  char32_t code;
  std::string_view bytes;
};

Character first_of(std::string_view text) {
  const Utf8Step step = utf8_step(text);
  return {step.valid ? step.code_point : 0xFFFD, text.substr(0, static_cast<size_t>(step.length))};
}

Character last_of(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80)
    --begin;
  const Character c = first_of(text.substr(begin));
  return c.bytes.size() == text.size() - begin ? c : Character{0xFFFD, text.substr(text.size() - 1)};
}

template <class F>
void for_each_character(std::string_view text, const F& f) {
  while (!text.empty()) {
    const Character c = first_of(text);
    f(c);
    text.remove_prefix(c.bytes.size());
  }
}

template <class Map>
std::string map_characters(std::string_view text, const Map& map) {
  std::string out;
  out.reserve(text.size());
  for_each_character(text, [&](const Character& c) {
    const char32_t mapped = map(c.code);
    if (mapped == c.code)
      out += c.bytes;
    else
      append_utf8(mapped, out);
  });
  return out;
}

char32_t to_upper(char32_t c) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}
char32_t to_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}
utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}
bool is_letter(char32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
bool is_digit(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_ND;
}

template <class Predicate>
bool all_of(std::string_view text, const Predicate& predicate) {
  if (text.empty()) return false;
  while (!text.empty()) {
    const Character c = first_of(text);
    if (!predicate(c.code)) return false;
    text.remove_prefix(c.bytes.size());
  }
  return true;
}

bool is_in(std::string_view set, const Character& c) {
  return set.find(c.bytes) != std::string_view::npos;
}

}  // namespace

int64_t string_length(std::string_view text) {
  int64_t length = 0;
  for_each_character(text, [&](const Character&) { ++length; });
  return length;
}

std::string reverse(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    out += last_of(text).bytes;
    text.remove_suffix(last_of(text).bytes.size());
  }
  return out;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> all;
  for_each_character(text, [&](const Character& c) { all.push_back(c.bytes); });
  return all;
}

size_t byte_offset(std::string_view text, int64_t index) {
  size_t offset = 0;
  for (; index > 0 && offset < text.size(); --index) offset += first_of(text.substr(offset)).bytes.size();
  return offset;
}

bool is_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> set) {
  const auto dropped = [&](const Character& c) { return set ? is_in(*set, c) : is_space(c.code); };
  if (side != Side::kRight)
    while (!text.empty() && dropped(first_of(text))) text.remove_prefix(first_of(text).bytes.size());
  if (side != Side::kLeft)
    while (!text.empty() && dropped(last_of(text))) text.remove_suffix(last_of(text).bytes.size());
  return text;
}

size_t find(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* at = ::memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return at ? static_cast<size_t>(static_cast<const char*>(at) - text.data()) : std::string_view::npos;
}

size_t rfind(std::string_view text, std::string_view needle) {
  // memmem backwards: searching forwards again and again would be quadratic.
  const std::string reversed_text(text.rbegin(), text.rend());
  const size_t at = find(reversed_text, std::string(needle.rbegin(), needle.rend()));
  return at == std::string_view::npos ? at : text.size() - at - needle.size();
}

int64_t count(std::string_view text, std::string_view needle) {
  if (needle.empty()) return string_length(text) + 1;
  int64_t n = 0;
  for (size_t at = find(text, needle); at != std::string_view::npos;
       at = find(text, needle, at + needle.size()))
    ++n;
  return n;
}

std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator,
                                    int64_t max_splits) {
  std::vector<std::string_view> parts;
  if (!separator) {
    for (text = strip(text, Side::kLeft); !text.empty(); text = strip(text, Side::kLeft)) {
      if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
        parts.push_back(text);
        break;
      }
      size_t end = 0;
      while (end < text.size() && !is_space(first_of(text.substr(end)).code))
        end += first_of(text.substr(end)).bytes.size();
      parts.push_back(text.substr(0, end));
      text.remove_prefix(end);
    }
    return parts;
  }
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t at = find(text, *separator);
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + separator->size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<std::string_view> rsplit(std::string_view text, std::optional<std::string_view> separator,
                                     int64_t max_splits) {
  if (max_splits < 0) return split(text, separator, -1);
  std::vector<std::string_view> parts;
  if (!separator) {
    for (text = strip(text, Side::kRight); !text.empty(); text = strip(text, Side::kRight)) {
      if (static_cast<int64_t>(parts.size()) == max_splits) {
        parts.push_back(text);
        break;
      }
      size_t begin = text.size();
      while (begin > 0 && !is_space(last_of(text.substr(0, begin)).code))
        begin -= last_of(text.substr(0, begin)).bytes.size();
      parts.push_back(text.substr(begin));
      text.remove_suffix(text.size() - begin);
    }
  } else {
    // Occurrences are taken from the right: the reversed text is split from the left.
    const std::string reversed_text(text.rbegin(), text.rend());
    const std::string reversed_separator(separator->rbegin(), separator->rend());
    for (const std::string_view part : split(reversed_text, reversed_separator, max_splits))
      parts.push_back(text.substr(
          text.size() - static_cast<size_t>(part.data() - reversed_text.data()) - part.size(), part.size()));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    size_t end = 0;
    size_t break_bytes = 0;
    while (end < text.size() && break_bytes == 0) {
      const Character c = first_of(text.substr(end));
      if ((c.code >= 0x0A && c.code <= 0x0D) || (c.code >= 0x1C && c.code <= 0x1E) || c.code == 0x85 ||
          c.code == 0x2028 || c.code == 0x2029)
        break_bytes = text.substr(end).starts_with("\r\n") ? 2 : c.bytes.size();
      else
        end += c.bytes.size();
    }
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end + break_bytes);
  }
  return lines;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t count) {
  std::string out;
  if (from.empty()) {
    for_each_character(text, [&](const Character& c) {
      if (count != 0) out += to;
      if (count > 0) --count;
      out += c.bytes;
    });
    if (count != 0) out += to;
    return out;
  }
  for (; count != 0; --count) {
    const size_t at = find(text, from);
    if (at == std::string_view::npos) break;
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  return out += text;
}

std::string upper(std::string_view text) {
  return map_characters(replace(text, "ß", "SS", -1), to_upper);
}
std::string lower(std::string_view text) {
  return map_characters(text, to_lower);
}

std::string capitalize(std::string_view text) {
  bool first = true;
  return map_characters(text,
                        [&](char32_t c) { return std::exchange(first, false) ? to_upper(c) : to_lower(c); });
}

std::string title(std::string_view text) {
  bool after_letter = false;
  return map_characters(text, [&](char32_t c) {
    return std::exchange(after_letter, is_letter(c)) ? to_lower(c) : to_upper(c);
  });
}

std::string title_filter(std::string_view text) {
  bool begins = true;
  return map_characters(text, [&](char32_t c) {
    const bool separates = is_space(c) || (c < 0x80 && std::strchr("-({[<", static_cast<int>(c)) && c != 0);
    return std::exchange(begins, separates) ? to_upper(c) : to_lower(c);
  });
}

bool all_digits(std::string_view text) {
  return all_of(text, is_digit);
}
bool all_letters(std::string_view text, bool or_digits) {
  return all_of(text, [&](char32_t c) { return is_letter(c) || (or_digits && is_digit(c)); });
}
bool all_space(std::string_view text) {
  return all_of(text, is_space);
}

bool has_case(std::string_view text, bool is_upper) {
  bool wanted = false;
  bool other = false;
  for_each_character(text, [&](const Character& c) {
    const auto k = category(c.code);
    other |= k == (is_upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU) || k == UTF8PROC_CATEGORY_LT;
    wanted |= k == (is_upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
  });
  return wanted && !other;
}

std::string string_repr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  const auto hex = [](char32_t c, int digits, std::string& out) {
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out += "0123456789abcdef"[(c >> shift) & 15];
  };
  std::string out(1, quote);
  for_each_character(text, [&](const Character& character) {
    const char32_t c = character.code;
    const auto k = category(c);
    const bool printable = c == ' ' || !(k == UTF8PROC_CATEGORY_CN || k >= UTF8PROC_CATEGORY_ZS);
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (printable) {
      out += character.bytes;
    } else if (c < 0x100) {
      out += "\\x";
      hex(c, 2, out);
    } else if (c < 0x10000) {
      out += "\\u";
      hex(c, 4, out);
    } else {
      out += "\\U";
      hex(c, 8, out);
    }
  });
  return out += quote;
}

}  // namespace moge::text::jinja
