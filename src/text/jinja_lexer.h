// A template's text as tokens, with Jinja's white space control as Hugging Face sets it: trim_blocks,
// lstrip_blocks, no trailing newline kept.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moge::text::jinja {

struct Token {
  enum class Kind {
    kText,           ///< outside of tags; `text` is what to print
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kName,
    kString,    ///< `text` is the value, escapes resolved
    kInteger,   ///< `integer`
    kFloat,     ///< `real`
    kOperator,  ///< `text` is it: "+", "==", "(", ...
    kEnd,
  };
  Kind kind;
  int line;
  std::string text;
  int64_t integer = 0;
  double real = 0;
};

/// Throws TemplateError. The source must be UTF-8.
std::vector<Token> tokenize(std::string_view source);

}  // namespace moge::text::jinja
