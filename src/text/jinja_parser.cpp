#include "text/jinja_parser.h"

#include <initializer_list>
#include <optional>

#include "text/jinja_expression_parser.h"

namespace moge::text::jinja {

namespace {

using Kind = Stmt::Kind;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Body run() {
    Body body = statements({});
    if (!tokens_.is(Token::Kind::kEnd)) tokens_.fail_expected("the end of the template");
    return body;
  }

 private:
  /// Statements up to a tag of one of these names, whose name is next then, or up to the end.
  Body statements(std::initializer_list<std::string_view> ends) {
    const DepthGuard guard(depth_, tokens_.line());
    Body body;
    while (!tokens_.is(Token::Kind::kEnd)) {
      const int line = tokens_.line();
      if (tokens_.is(Token::Kind::kText)) {
        body.push_back({.kind = Kind::kText, .line = line, .text = tokens_.next().text});
      } else if (tokens_.is(Token::Kind::kVariableBegin)) {
        tokens_.next();
        body.push_back({.kind = Kind::kOutput, .line = line, .expr = expressions_.tuple()});
        tokens_.expect(Token::Kind::kVariableEnd, "'}}'");
      } else {
        tokens_.next();
        for (const std::string_view end : ends)
          if (tokens_.is_name(end)) return body;
        if (std::optional<Stmt> stmt = statement(line)) body.push_back(std::move(*stmt));
        end_tag();
      }
    }
    if (ends.size() > 0) tokens_.fail_expected(str("{% ", *(ends.end() - 1), " %}"));
    return body;
  }

  void end_tag() { tokens_.expect(Token::Kind::kBlockEnd, "'%}'"); }

  /// "%} statements {% name" with the closing name consumed, but not its "%}".
  Body body_until(std::string_view end) {
    end_tag();
    Body body = statements({end});
    tokens_.expect_keyword(end);
    return body;
  }

  /// The tag's name is next. Nothing: the tag says nothing to run.
  std::optional<Stmt> statement(int line) {
    const std::string name = tokens_.expect_name();
    if (name == "if") return if_statement(line);
    if (name == "for") return for_statement(line);
    if (name == "set") return set_statement(line);
    if (name == "macro") return macro_statement(line);
    if (name == "call") return call_statement(line);
    if (name == "filter") return filter_statement(line);
    if (name == "with") return with_statement(line);
    if (name == "generation") {
      Stmt stmt{.kind = Kind::kScope, .line = line};
      stmt.body = body_until("endgeneration");
      return stmt;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) throw TemplateError{line, str("{% ", name, " %} outside of a loop")};
      return Stmt{.kind = name == "break" ? Kind::kBreak : Kind::kContinue, .line = line};
    }
    throw TemplateError{line, str("unknown or unsupported tag {% ", name, " %}")};
  }

  Stmt if_statement(int line) {
    Stmt stmt{.kind = Kind::kIf, .line = line};
    stmt.expr = expressions_.tuple(/*without_conditional=*/true);
    end_tag();
    stmt.body = statements({"elif", "else", "endif"});
    const int next_line = tokens_.line();
    if (tokens_.skip_name("elif")) {
      // The nested if consumes the one endif that both share. Recursion depth is bounded by DepthGuard.
      const DepthGuard guard(depth_, next_line);
      stmt.otherwise.push_back(if_statement(next_line));
      return stmt;
    }
    if (tokens_.skip_name("else")) {
      end_tag();
      stmt.otherwise = statements({"endif"});
    }
    tokens_.expect_keyword("endif");
    return stmt;
  }

  Stmt for_statement(int line) {
    Stmt stmt{.kind = Kind::kFor, .line = line};
    stmt.target = target(/*with_attributes=*/false);
    tokens_.expect_keyword("in");
    stmt.expr = expressions_.tuple(/*without_conditional=*/true);
    if (tokens_.skip_name("if")) stmt.condition = expressions_.expression();
    if (tokens_.is_name("recursive")) throw TemplateError{line, "recursive loops are not supported"};
    end_tag();
    ++loops_;
    stmt.body = statements({"else", "endfor"});
    --loops_;
    if (tokens_.skip_name("else")) {
      end_tag();
      stmt.otherwise = statements({"endfor"});
    }
    tokens_.expect_keyword("endfor");
    return stmt;
  }

  Stmt set_statement(int line) {
    Stmt stmt{.kind = Kind::kSet, .line = line};
    stmt.target = target(/*with_attributes=*/true);
    if (tokens_.skip_op("=")) {
      stmt.expr = expressions_.tuple();
      return stmt;
    }
    stmt.kind = Kind::kSetBlock;
    if (tokens_.skip_op("|")) stmt.expr = expressions_.filters_of_block();
    stmt.body = body_until("endset");
    return stmt;
  }

  Stmt macro_statement(int line) {
    Stmt stmt{.kind = Kind::kMacro, .line = line, .macro = std::make_unique<MacroDefinition>()};
    stmt.macro->name = tokens_.expect_name();
    parameters(*stmt.macro);
    stmt.macro->body = macro_body("endmacro");
    return stmt;
  }

  Stmt call_statement(int line) {
    Stmt stmt{.kind = Kind::kCallBlock, .line = line, .macro = std::make_unique<MacroDefinition>()};
    stmt.macro->name = "caller";
    if (tokens_.is_op("(")) parameters(*stmt.macro);
    stmt.expr = expressions_.expression();
    if (stmt.expr->kind != Expr::Kind::kCall)
      throw TemplateError{line, "{% call %} expects a call, as in {% call f() %}"};
    stmt.macro->body = macro_body("endcall");
    return stmt;
  }

  Stmt filter_statement(int line) {
    Stmt stmt{.kind = Kind::kFilterBlock, .line = line};
    stmt.expr = expressions_.filters_of_block();
    stmt.body = body_until("endfilter");
    return stmt;
  }

  Stmt with_statement(int line) {
    Stmt stmt{.kind = Kind::kScope, .line = line};
    while (!tokens_.is(Token::Kind::kBlockEnd)) {
      if (!stmt.with.empty()) tokens_.expect_op(",");
      Target to = target(/*with_attributes=*/false);
      tokens_.expect_op("=");
      stmt.with.emplace_back(std::move(to), expressions_.expression());
    }
    stmt.body = body_until("endwith");
    return stmt;
  }

  /// A macro's body is no part of the loop around it.
  Body macro_body(std::string_view end) {
    const int loops = loops_;
    loops_ = 0;
    Body body = body_until(end);
    loops_ = loops;
    return body;
  }

  void parameters(MacroDefinition& macro) {
    tokens_.expect_op("(");
    while (!tokens_.is_op(")")) {
      Parameter parameter{tokens_.expect_name(), nullptr};
      if (tokens_.skip_op("="))
        parameter.default_value = expressions_.expression();
      else if (!macro.parameters.empty() && macro.parameters.back().default_value)
        throw TemplateError{tokens_.line(), "a parameter without a default follows one with a default"};
      macro.parameters.push_back(std::move(parameter));
      if (!tokens_.is_op(")")) tokens_.expect_op(",");
    }
    tokens_.next();
  }

  Target target(bool with_attributes) {
    const bool in_parentheses = tokens_.skip_op("(");
    Target to;
    do {
      if (to.unpacks && !tokens_.is(Token::Kind::kName)) break;  // a comma at the end
      to.names.push_back({tokens_.expect_name(), ""});
      if (with_attributes && tokens_.skip_op(".")) to.names.back().attribute = tokens_.expect_name();
      to.unpacks |= tokens_.is_op(",");
    } while (tokens_.skip_op(",") && !tokens_.is_name("in"));
    if (in_parentheses) tokens_.expect_op(")");
    return to;
  }

  TokenStream tokens_;
  int depth_ = 0;
  int loops_ = 0;
  ExpressionParser expressions_{tokens_, depth_};
};

}  // namespace

Body parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace moge::text::jinja
