#include "text/jinja_expression_parser.h"

#include <array>

#include "text/jinja_builtins.h"

namespace moge::text::jinja {

namespace {

using Kind = Expr::Kind;

struct OpText {
  std::string_view text;
  Op op;
};

/// The operator among `ops` that comes next, or null.
template <size_t N>
const OpText* next_op(const TokenStream& tokens, const std::array<OpText, N>& ops) {
  for (const OpText& candidate : ops)
    if (tokens.is_op(candidate.text)) return &candidate;
  return nullptr;
}

constexpr std::array<OpText, 6> kComparisons = {
    {{"==", Op::kEq}, {"!=", Op::kNe}, {"<", Op::kLt}, {"<=", Op::kLe}, {">", Op::kGt}, {">=", Op::kGe}}};
constexpr std::array<OpText, 2> kSums = {{{"+", Op::kAdd}, {"-", Op::kSub}}};
constexpr std::array<OpText, 4> kProducts = {
    {{"*", Op::kMul}, {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}}};
constexpr std::array<OpText, 1> kPowers = {{{"**", Op::kPow}}};

/// Left-associative chains deepen the tree without recursion in the parser, but the interpreter and the
/// destructor recurse.
constexpr int kMaxChain = 100;

[[noreturn]] void fail_chain(int line) {
  throw TemplateError{line, str("an expression chains more than ", kMaxChain, " operations")};
}

}  // namespace

ExprPtr ExpressionParser::make(Kind kind, int line, ExprPtr first) const {
  ExprPtr node = make(kind, line);
  node->items.push_back(std::move(first));
  return node;
}

ExprPtr ExpressionParser::expression() {
  const DepthGuard guard(depth_, tokens_.line());
  ExprPtr node = logical_or();
  for (int links = 0; tokens_.is_name("if"); ++links) {
    if (links > kMaxChain) fail_chain(tokens_.line());
    node = make(Kind::kConditional, tokens_.next().line, std::move(node));
    node->items.push_back(logical_or());
    node->items.push_back(tokens_.skip_name("else") ? expression() : nullptr);
  }
  return node;
}

ExprPtr ExpressionParser::tuple(bool without_conditional) {
  const int line = tokens_.line();
  const auto item = [&] { return without_conditional ? logical_or() : expression(); };
  const auto ends = [&] {
    return tokens_.is(Token::Kind::kBlockEnd) || tokens_.is(Token::Kind::kVariableEnd) || tokens_.is_op(")");
  };
  ExprPtr first = item();
  if (!tokens_.is_op(",")) return first;
  ExprPtr node = make(Kind::kTuple, line, std::move(first));
  while (tokens_.skip_op(",") && !ends()) node->items.push_back(item());
  return node;
}

ExprPtr ExpressionParser::logical_or() {
  const DepthGuard guard(depth_, tokens_.line());
  ExprPtr node = logical_and();
  for (int links = 0; tokens_.is_name("or"); ++links) {
    if (links > kMaxChain) fail_chain(tokens_.line());
    node = make(Kind::kOr, tokens_.next().line, std::move(node));
    node->items.push_back(logical_and());
  }
  return node;
}

ExprPtr ExpressionParser::logical_and() {
  ExprPtr node = logical_not();
  for (int links = 0; tokens_.is_name("and"); ++links) {
    if (links > kMaxChain) fail_chain(tokens_.line());
    node = make(Kind::kAnd, tokens_.next().line, std::move(node));
    node->items.push_back(logical_not());
  }
  return node;
}

ExprPtr ExpressionParser::logical_not() {
  if (!tokens_.is_name("not")) return comparison();
  const DepthGuard guard(depth_, tokens_.line());
  const int line = tokens_.next().line;
  return make(Kind::kNot, line, logical_not());
}

ExprPtr ExpressionParser::comparison() {
  ExprPtr node = sum();
  ExprPtr chain;
  while (true) {
    Op op = Op::kIn;
    const int line = tokens_.line();
    if (const OpText* found = next_op(tokens_, kComparisons)) {
      op = found->op;
      tokens_.next();
    } else if (tokens_.is_name("not") && tokens_.is_name("in", 1)) {
      op = Op::kNotIn;
      tokens_.next();
      tokens_.next();
    } else if (!tokens_.skip_name("in")) {
      break;
    }
    if (!chain) chain = make(Kind::kCompare, line, std::move(node));
    chain->ops.push_back(op);
    chain->items.push_back(sum());
  }
  return chain ? std::move(chain) : std::move(node);
}

ExprPtr ExpressionParser::sum() {
  ExprPtr node = concatenation();
  int links = 0;
  while (const OpText* op = next_op(tokens_, kSums)) {
    if (++links > kMaxChain) fail_chain(tokens_.line());
    node = make(Kind::kBinary, tokens_.next().line, std::move(node));
    node->ops.push_back(op->op);
    node->items.push_back(concatenation());
  }
  return node;
}

ExprPtr ExpressionParser::concatenation() {
  ExprPtr first = product();
  if (!tokens_.is_op("~")) return first;
  ExprPtr node = make(Kind::kConcat, tokens_.line(), std::move(first));
  while (tokens_.skip_op("~")) node->items.push_back(product());
  return node;
}

ExprPtr ExpressionParser::product() {
  ExprPtr node = power();
  int links = 0;
  while (const OpText* op = next_op(tokens_, kProducts)) {
    if (++links > kMaxChain) fail_chain(tokens_.line());
    node = make(Kind::kBinary, tokens_.next().line, std::move(node));
    node->ops.push_back(op->op);
    node->items.push_back(power());
  }
  return node;
}

ExprPtr ExpressionParser::power() {
  ExprPtr node = unary();
  int links = 0;
  while (const OpText* op = next_op(tokens_, kPowers)) {
    if (++links > kMaxChain) fail_chain(tokens_.line());
    node = make(Kind::kBinary, tokens_.next().line, std::move(node));
    node->ops.push_back(op->op);
    node->items.push_back(unary());
  }
  return node;
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  const DepthGuard guard(depth_, tokens_.line());
  ExprPtr node;
  if (const OpText* op = next_op(tokens_, kSums)) {
    const int line = tokens_.next().line;
    node = make(Kind::kUnary, line, unary(false));
    node->ops.push_back(op->op == Op::kSub ? Op::kNeg : Op::kPos);
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::primary() {
  const int line = tokens_.line();
  if (tokens_.is_op("[")) return list();
  if (tokens_.is_op("{")) return dict();
  if (tokens_.skip_op("(")) {
    if (tokens_.skip_op(")")) return make(Kind::kTuple, line);
    ExprPtr inner = tuple();
    tokens_.expect_op(")");
    return inner;
  }
  ExprPtr node = make(Kind::kLiteral, line);
  const Token& token = tokens_.peek();
  switch (token.kind) {
    case Token::Kind::kName:
      if (token.text == "true" || token.text == "True") {
        node->value = Value::boolean(true);
      } else if (token.text == "false" || token.text == "False") {
        node->value = Value::boolean(false);
      } else if (token.text == "none" || token.text == "None") {
        node->value = Value::none();
      } else {
        node->kind = Kind::kName;
        node->name = token.text;
      }
      tokens_.next();
      return node;
    case Token::Kind::kString: {
      std::string text;
      while (tokens_.is(Token::Kind::kString)) text += tokens_.next().text;  // neighbours join, as in Python
      node->value = Value::string(std::move(text));
      return node;
    }
    case Token::Kind::kInteger:
      node->value = Value::integer(tokens_.next().integer);
      return node;
    case Token::Kind::kFloat:
      node->value = Value::real(tokens_.next().real);
      return node;
    default:
      tokens_.fail_expected("an expression");
  }
}

ExprPtr ExpressionParser::list() {
  ExprPtr node = make(Kind::kList, tokens_.next().line);
  while (!tokens_.is_op("]")) {
    node->items.push_back(expression());
    if (!tokens_.is_op("]")) tokens_.expect_op(",");
  }
  tokens_.next();
  return node;
}

ExprPtr ExpressionParser::dict() {
  ExprPtr node = make(Kind::kDict, tokens_.next().line);
  while (!tokens_.is_op("}")) {
    node->items.push_back(expression());
    tokens_.expect_op(":");
    node->items.push_back(expression());
    if (!tokens_.is_op("}")) tokens_.expect_op(",");
  }
  tokens_.next();
  return node;
}

ExprPtr ExpressionParser::postfix(ExprPtr node) {
  for (int links = 0;; ++links) {
    if (links > kMaxChain) fail_chain(tokens_.line());
    if (tokens_.is_op(".") || tokens_.is_op("[")) {
      node = subscript(std::move(node));
    } else if (tokens_.is_op("(")) {
      node = make(Kind::kCall, tokens_.line(), std::move(node));
      arguments(*node);
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::filters_and_tests(ExprPtr node) {
  for (int links = 0;; ++links) {
    if (links > kMaxChain) fail_chain(tokens_.line());
    if (tokens_.skip_op("|")) {
      node = filter(std::move(node));
    } else if (tokens_.skip_name("is")) {
      node = test(std::move(node));
    } else if (tokens_.is_op("(")) {
      node = make(Kind::kCall, tokens_.line(), std::move(node));
      arguments(*node);
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::filters_of_block() {
  ExprPtr node;
  for (int links = 0; node == nullptr || tokens_.skip_op("|"); ++links) {
    if (links > kMaxChain) fail_chain(tokens_.line());
    node = filter(std::move(node));
  }
  return node;
}

ExprPtr ExpressionParser::filter(ExprPtr node) {
  ExprPtr call = make(Kind::kFilter, tokens_.line(), std::move(node));
  call->name = tokens_.expect_name();
  call->builtin = find_filter(call->name);
  if (!call->builtin) throw TemplateError{call->line, str("no filter named '", call->name, "'")};
  if (tokens_.is_op("(")) arguments(*call);
  return call;
}

ExprPtr ExpressionParser::test(ExprPtr node) {
  const int line = tokens_.line();
  const bool negated = tokens_.skip_name("not");
  ExprPtr call = make(Kind::kTest, line, std::move(node));
  call->name = tokens_.expect_name();
  call->builtin = find_test(call->name);
  if (!call->builtin) throw TemplateError{line, str("no test named '", call->name, "'")};
  const Token& token = tokens_.peek();
  const bool is_word = token.kind == Token::Kind::kName;
  if (tokens_.is_op("(")) {
    arguments(*call);
  } else if ((is_word && token.text != "else" && token.text != "or" && token.text != "and" &&
              token.text != "is" && token.text != "if" && token.text != "in" && token.text != "not") ||
             token.kind == Token::Kind::kString || token.kind == Token::Kind::kInteger ||
             token.kind == Token::Kind::kFloat || tokens_.is_op("[") || tokens_.is_op("{")) {
    const DepthGuard guard(depth_, line);
    call->items.push_back(postfix(primary()));  // "x is divisibleby 3"
  }
  return negated ? make(Kind::kNot, line, std::move(call)) : std::move(call);
}

ExprPtr ExpressionParser::subscript(ExprPtr node) {
  const int line = tokens_.line();
  if (tokens_.skip_op(".")) {
    if (tokens_.is(Token::Kind::kInteger)) {  // pair.0
      ExprPtr index = primary();
      node = make(Kind::kSubscript, line, std::move(node));
      node->items.push_back(std::move(index));
      return node;
    }
    node = make(Kind::kAttribute, line, std::move(node));
    node->name = tokens_.expect_name();
    return node;
  }
  tokens_.expect_op("[");
  ExprPtr start = tokens_.is_op(":") ? nullptr : expression();
  if (!tokens_.is_op(":")) {
    node = make(Kind::kSubscript, line, std::move(node));
    node->items.push_back(std::move(start));
  } else {
    tokens_.next();
    node = make(Kind::kSlice, line, std::move(node));
    node->items.push_back(std::move(start));
    node->items.push_back(tokens_.is_op(":") || tokens_.is_op("]") ? nullptr : expression());
    node->items.push_back(tokens_.skip_op(":") && !tokens_.is_op("]") ? expression() : nullptr);
  }
  tokens_.expect_op("]");
  return node;
}

void ExpressionParser::arguments(Expr& call) {
  tokens_.expect_op("(");
  while (!tokens_.is_op(")")) {
    if (tokens_.is_op("*") || tokens_.is_op("**"))
      throw TemplateError{tokens_.line(), "unpacking arguments (*args, **kwargs) is not supported"};
    if (tokens_.is(Token::Kind::kName) && tokens_.is_op("=", 1)) {
      std::string name = tokens_.next().text;
      tokens_.next();
      call.keywords.emplace_back(std::move(name), expression());
    } else {
      if (!call.keywords.empty())
        throw TemplateError{tokens_.line(), "a positional argument follows a keyword argument"};
      call.items.push_back(expression());
    }
    if (!tokens_.is_op(")")) tokens_.expect_op(",");
  }
  tokens_.next();
}

}  // namespace moge::text::jinja
