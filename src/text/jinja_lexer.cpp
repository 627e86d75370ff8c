#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "text/jinja_error.h"
#include "text/jinja_strings.h"
#include "text/utf8.h"

namespace moge::text::jinja {

namespace {

constexpr auto kNpos = std::string_view::npos;

/// \r\n and \r become \n; one newline at the end is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t tag = next_tag();
      const std::string_view text = std::string_view(source_).substr(at_, tag - at_);
      if (tag == source_.size()) {
        add_text(text);
        advance(tag);
        break;
      }
      add_text(text_before(text, tag));
      advance(tag);
      lex_tag();
    }
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }

  [[noreturn]] void error(const std::string& message) const { throw TemplateError{line_, message}; }

  void add(Token::Kind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }
  void add_text(std::string_view text) {
    if (!text.empty()) add(Token::Kind::kText, std::string(text));
  }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  /// Where the next "{{", "{%" or "{#" begins, or the end.
  size_t next_tag() const {
    for (size_t i = source_.find('{', at_); i != kNpos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#'))
        return i;
    }
    return source_.size();
  }

  /// The text before a tag as it is printed: "{%-" strips it, lstrip_blocks drops an indentation of a block
  /// or comment that begins its line, unless "{%+".
  std::string_view text_before(std::string_view text, size_t tag) const {
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') return strip(text, Side::kRight);
    if (sign == '+' || source_[tag + 1] == '{') return text;
    const size_t newline = text.rfind('\n');
    const bool begins_line = newline != kNpos || at_ == 0 || source_[at_ - 1] == '\n';
    const size_t line_start = newline == kNpos ? 0 : newline + 1;
    const bool blank = strip(text.substr(line_start), Side::kLeft).empty();
    return begins_line && blank ? text.substr(0, line_start) : text;
  }

  void skip_spaces() { advance(source_.size() - strip(rest(), Side::kLeft).size()); }

  /// Behind the "%" or "#" of an end tag whose sign has been read: "-" strips, trim_blocks drops a newline.
  void trim_after(bool strip_all, bool keep) {
    if (strip_all)
      skip_spaces();
    else if (!keep && rest().starts_with('\n'))
      advance(at_ + 1);
  }

  void lex_tag() {
    const char kind = source_[at_ + 1];
    if (kind == '#') return lex_comment();
    if (kind == '%' && lex_raw()) return;
    const bool is_block = kind == '%';
    add(is_block ? Token::Kind::kBlockBegin : Token::Kind::kVariableBegin, "");
    const int begin_line = line_;
    advance(at_ + 2);
    if (rest().starts_with('-') || rest().starts_with('+')) advance(at_ + 1);
    std::string open;  // brackets: inside them, "}}" and "%}" are operators
    while (true) {
      skip_spaces();
      if (at_ >= source_.size())
        throw TemplateError{begin_line, str("the tag ", is_block ? "{%" : "{{", " is never closed")};
      if (open.empty() && end_tag(is_block)) return;
      lex_expression_token(open);
    }
  }

  bool end_tag(bool is_block) {
    const char sign = rest()[0];
    const bool has_sign = sign == '-' || (is_block && sign == '+');
    if (!rest().substr(has_sign).starts_with(is_block ? "%}" : "}}")) return false;
    add(is_block ? Token::Kind::kBlockEnd : Token::Kind::kVariableEnd, "");
    advance(at_ + has_sign + 2);
    trim_after(sign == '-', !is_block || sign == '+');
    return true;
  }

  void lex_comment() {
    const bool has_sign = rest().substr(2).starts_with('-') || rest().substr(2).starts_with('+');
    const size_t begin = at_ + 2 + has_sign;
    const size_t end = source_.find("#}", begin);
    if (end == kNpos) error("the comment {# is never closed");
    const char sign = end > begin ? source_[end - 1] : '\0';
    advance(end + 2);
    trim_after(sign == '-', sign == '+');
  }

  /// "{%- word -%}" at `at`: the position behind it, or npos. `sign` is what precedes the end.
  size_t word_tag(size_t at, std::string_view word, char& sign) const {
    std::string_view text = std::string_view(source_).substr(at);
    if (!text.starts_with("{%")) return kNpos;
    text.remove_prefix(2);
    if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
    text = strip(text, Side::kLeft);
    if (!text.starts_with(word)) return kNpos;
    text = strip(text.substr(word.size()), Side::kLeft);
    sign = text.starts_with('-') || text.starts_with('+') ? text[0] : '\0';
    if (sign != '\0') text.remove_prefix(1);
    return text.starts_with("%}") ? source_.size() - text.size() + 2 : kNpos;
  }

  /// {% raw %}...{% endraw %}
  bool lex_raw() {
    char sign = '\0';
    const size_t begin = word_tag(at_, "raw", sign);
    if (begin == kNpos || sign == '+') return false;
    advance(begin);
    if (sign == '-') skip_spaces();
    for (size_t tag = source_.find("{%", at_); tag != kNpos; tag = source_.find("{%", tag + 1)) {
      const size_t end = word_tag(tag, "endraw", sign);
      if (end == kNpos) continue;
      add_text(text_before(std::string_view(source_).substr(at_, tag - at_), tag));
      advance(end);
      trim_after(sign == '-', sign == '+');
      return true;
    }
    error("{% raw %} is never closed by {% endraw %}");
  }

  void lex_expression_token(std::string& open) {
    const char c = source_[at_];
    if (is_ascii_digit(c)) return lex_number();
    if (c == '"' || c == '\'') return lex_string();
    if (is_name_start(c)) {
      size_t end = at_ + 1;
      while (end < source_.size() && (is_name_start(source_[end]) || is_ascii_digit(source_[end]))) ++end;
      add(Token::Kind::kName, source_.substr(at_, end - at_));
      return advance(end);
    }
    static constexpr std::array<std::string_view, 26> kOperators = {
        "==", "!=", "<=", ">=", "//", "**", "<", ">", "=", "+", "-", "*", "/",
        "%",  "~",  "|",  "(",  ")",  "[",  "]", "{", "}", ",", ".", ":", ";"};
    for (const std::string_view op : kOperators) {
      if (!rest().starts_with(op)) continue;
      if (op == "(" || op == "[" || op == "{") open += op == "(" ? ')' : op == "[" ? ']' : '}';
      if (op == ")" || op == "]" || op == "}") {
        if (open.empty() || open.back() != op[0])
          error(str("unexpected '", op, "'", open.empty() ? "" : str(", expected '", open.back(), "'")));
        open.pop_back();
      }
      add(Token::Kind::kOperator, std::string(op));
      return advance(at_ + op.size());
    }
    error(str("unexpected character '", c, "'"));
  }

  void lex_number() {
    std::string digits;
    size_t end = at_;
    const auto take = [&](const auto& accept) {
      const size_t before = end;
      while (end < source_.size() && (accept(source_[end]) || (source_[end] == '_' && end > before))) {
        if (source_[end] != '_') digits += source_[end];
        ++end;
      }
      return end > before;
    };
    const auto is_hex = [](char c) {
      return is_ascii_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    };
    const std::string_view prefix = rest().substr(0, 2);
    int base = 10;
    if (prefix == "0x" || prefix == "0X") base = 16;
    if (prefix == "0o" || prefix == "0O") base = 8;
    if (prefix == "0b" || prefix == "0B") base = 2;
    if (base != 10) end += 2;
    bool is_float = false;
    if (base == 16) {
      take(is_hex);
    } else {
      take(is_ascii_digit);
      const auto digit_at = [&](size_t i) { return i < source_.size() && is_ascii_digit(source_[i]); };
      if (base == 10 && end < source_.size() && source_[end] == '.' && digit_at(end + 1) && !after_dot()) {
        is_float = true;
        digits += source_[end++];
        take(is_ascii_digit);
      }
      if (base == 10 && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
        const bool has_sign =
            end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
        if (digit_at(end + 1 + has_sign)) {
          is_float = true;
          digits += source_.substr(end, 1 + has_sign);
          end += 1 + has_sign;
          take(is_ascii_digit);
        }
      }
    }
    Token token{is_float ? Token::Kind::kFloat : Token::Kind::kInteger, line_, ""};
    const char* last = digits.data() + digits.size();
    if (is_float) {
      token.real = std::strtod(digits.c_str(), nullptr);
    } else {
      const auto [stop, code] = std::from_chars(digits.data(), last, token.integer, base);
      if (code != std::errc{} || stop != last)
        error(str("the integer ", source_.substr(at_, end - at_), " is not one, or is beyond 64 bits"));
    }
    tokens_.push_back(std::move(token));
    advance(end);
  }

  /// x.0.1 is two subscripts, not the float 0.1.
  bool after_dot() const {
    return !tokens_.empty() && tokens_.back().kind == Token::Kind::kOperator && tokens_.back().text == ".";
  }

  void lex_string() {
    const char quote = source_[at_];
    std::string value;
    size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] == '\\')
        i = append_escape(i + 1, value);
      else
        value += source_[i];
    }
    if (i >= source_.size()) error("a string is never closed");
    add(Token::Kind::kString, std::move(value));
    advance(i + 1);
  }

  /// Python's escapes; `at` is behind the backslash. Returns the position of the escape's last byte.
  size_t append_escape(size_t at, std::string& value) {
    if (at >= source_.size()) error("a string is never closed");
    static constexpr std::string_view kLetters = "nrtabfv\\'\"";
    static constexpr std::string_view kValues = "\n\r\t\a\b\f\v\\'\"";
    const char c = source_[at];
    if (c == '\n') return at;  // a backslash joins lines
    if (c >= '0' && c <= '7') {
      size_t end = at;
      char32_t code = 0;
      while (end < source_.size() && end < at + 3 && source_[end] >= '0' && source_[end] <= '7')
        code = 8 * code + static_cast<char32_t>(source_[end++] - '0');
      append_utf8(code, value);
      return end - 1;
    }
    if (const size_t k = kLetters.find(c); k != kNpos) {
      value += kValues[k];
      return at;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {  // an unknown escape stands for itself
      value += '\\';
      value += c;
      return at;
    }
    uint32_t code = 0;
    const char* first = source_.data() + at + 1;
    const char* last = first + std::min(digits, source_.size() - at - 1);
    const auto [stop, error_code] = std::from_chars(first, last, code, 16);
    if (error_code != std::errc{} || stop != first + digits)
      error(str("\\", c, " needs ", digits, " hexadecimal digits"));
    // A surrogate pair written as two escapes is one character here (in Python it would be two halves).
    if (code >= 0xD800 && code < 0xDC00 && c == 'u') {
      const std::string_view next = std::string_view(source_).substr(at + 5, 6);
      uint32_t low = 0;
      if (next.starts_with("\\u") && next.size() == 6 &&
          std::from_chars(next.data() + 2, next.data() + 6, low, 16).ptr == next.data() + 6 &&
          low >= 0xDC00 && low < 0xE000) {
        append_utf8(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), value);
        return at + 10;
      }
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      error(str("\\", c, " does not name a character"));
    append_utf8(code, value);
    return at + digits;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace moge::text::jinja
