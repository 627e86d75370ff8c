// The expression half of the parser; precedence as Jinja's own.
#pragma once
#include "text/jinja_ast.h"
#include "text/jinja_token_stream.h"

namespace moge::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens, int& depth) : tokens_(tokens), depth_(depth) {}

  ExprPtr expression();  ///< with "a if b else c"
  /// "a" or "a, b"; without_conditional leaves an `if` to the caller (a for statement's condition).
  ExprPtr tuple(bool without_conditional = false);
  /// "| a | b(1)": filters of a block's output; the innermost has a null items[0].
  ExprPtr filters_of_block();
  ExprPtr primary();
  ExprPtr postfix(ExprPtr node);

 private:
  ExprPtr make(Expr::Kind kind, int line) const {
    return std::make_unique<Expr>(Expr{.kind = kind, .line = line});
  }
  ExprPtr make(Expr::Kind kind, int line, ExprPtr first) const;
  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters = true);
  ExprPtr filters_and_tests(ExprPtr node);
  ExprPtr filter(ExprPtr node);
  ExprPtr test(ExprPtr node);
  ExprPtr subscript(ExprPtr node);
  ExprPtr list();
  ExprPtr dict();
  void arguments(Expr& call);

  TokenStream& tokens_;
  int& depth_;
};

}  // namespace moge::text::jinja
