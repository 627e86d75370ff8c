// What both halves of the parser do with tokens.
#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_error.h"
#include "text/jinja_lexer.h"

namespace moge::text::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is(Token::Kind kind, size_t ahead = 0) const { return peek(ahead).kind == kind; }
  bool is_op(std::string_view op, size_t ahead = 0) const {
    return is(Token::Kind::kOperator, ahead) && peek(ahead).text == op;
  }
  bool is_name(std::string_view name, size_t ahead = 0) const {
    return is(Token::Kind::kName, ahead) && peek(ahead).text == name;
  }
  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    next();
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!is_name(name)) return false;
    next();
    return true;
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail_expected(str("'", op, "'"));
  }
  void expect_keyword(std::string_view name) {
    if (!skip_name(name)) fail_expected(str("'", name, "'"));
  }
  std::string expect_name() {
    if (!is(Token::Kind::kName)) fail_expected("a name");
    return next().text;
  }
  void expect(Token::Kind kind, const char* what) {
    if (!is(kind)) fail_expected(what);
    next();
  }
  int line() const { return peek().line; }

  [[noreturn]] void fail_expected(const std::string& what) const {
    throw TemplateError{line(), str("expected ", what, ", got ", describe(peek()))};
  }

  static std::string describe(const Token& token) {
    switch (token.kind) {
      case Token::Kind::kText:
        return "text";
      case Token::Kind::kVariableBegin:
        return "'{{'";
      case Token::Kind::kVariableEnd:
        return "'}}'";
      case Token::Kind::kBlockBegin:
        return "'{%'";
      case Token::Kind::kBlockEnd:
        return "'%}'";
      case Token::Kind::kString:
        return "a string";
      case Token::Kind::kInteger:
      case Token::Kind::kFloat:
        return "a number";
      case Token::Kind::kName:
      case Token::Kind::kOperator:
        return "'" + token.text + "'";
      case Token::Kind::kEnd:
        return "the end of the template";
    }
    return "?";
  }

 private:
  std::vector<Token> tokens_;  ///< ends in kEnd
  size_t at_ = 0;
};

/// Bounds recursion: throws TemplateError past kMaxDepth nested expressions and statements.
class DepthGuard {
 public:
  DepthGuard(int& depth, int line) : depth_(depth) {
    if (++depth_ > kMaxDepth) {
      --depth_;
      throw TemplateError{line, str("nested more than ", kMaxDepth, " deep")};
    }
  }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  static constexpr int kMaxDepth = 150;
  int& depth_;
};

}  // namespace moge::text::jinja
