// What a template says: a tree of statements and expressions, made by the parser, run by the interpreter.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace moge::text::jinja {

struct Builtin;
struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<Stmt>;

enum class Op {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kNeg,
  kPos,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn
};

struct Expr {
  enum class Kind {
    kLiteral,      ///< value
    kName,         ///< name
    kList,         ///< items
    kTuple,        ///< items
    kDict,         ///< items: key, value, key, value, ...
    kAttribute,    ///< items[0].name
    kSubscript,    ///< items[0][items[1]]
    kSlice,        ///< items[0][items[1]:items[2]:items[3]]; absent ones are null
    kCall,         ///< items[0](items[1], ..., keywords)
    kFilter,       ///< items[0] | name(items[1], ..., keywords); items[0] is null for a filter block
    kTest,         ///< items[0] is name(items[1], ...)
    kUnary,        ///< ops[0] items[0]
    kBinary,       ///< items[0] ops[0] items[1]
    kConcat,       ///< items[0] ~ items[1] ~ ...
    kCompare,      ///< items[0] ops[0] items[1] ops[1] items[2] ...
    kNot,          ///< not items[0]
    kAnd,          ///< items[0] and items[1]
    kOr,           ///< items[0] or items[1]
    kConditional,  ///< items[0] if items[1] else items[2] (null: undefined)
  };
  Kind kind;
  int line;
  std::string name = {};
  Value value = {};
  std::vector<ExprPtr> items = {};
  std::vector<std::pair<std::string, ExprPtr>> keywords = {};
  std::vector<Op> ops = {};
  const Builtin* builtin = nullptr;  ///< of a filter or test
};

/// Where `set` and `for` put values: "x", "namespace.x", or several names that unpack one value.
struct Target {
  struct Name {
    std::string name;
    std::string attribute;  ///< of a namespace; empty: a plain variable
  };
  std::vector<Name> names;
  bool unpacks = false;
};

struct Parameter {
  std::string name;
  ExprPtr default_value;  ///< null: undefined unless given
};

/// A macro, or the body of a call block.
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
};

struct Stmt {
  enum class Kind {
    kText,         ///< text
    kOutput,       ///< {{ expr }}
    kSet,          ///< target = expr
    kSetBlock,     ///< target = output of body, through the filters of expr (null: none)
    kFor,          ///< for target in expr if condition: body, else otherwise
    kIf,           ///< if expr: body, else otherwise (an elif is an if there)
    kMacro,        ///< macro
    kCallBlock,    ///< expr, a call, with `caller` = macro
    kFilterBlock,  ///< output of body through the filters of expr
    kScope,        ///< body, with assignments of its own: generation, with (targets and values in `with`)
    kBreak,
    kContinue,
  };
  Kind kind;
  int line;
  std::string text = {};
  ExprPtr expr = {};
  ExprPtr condition = {};
  Target target = {};
  Body body = {};
  Body otherwise = {};
  std::vector<std::pair<Target, ExprPtr>> with = {};
  std::unique_ptr<MacroDefinition> macro = {};
};

}  // namespace moge::text::jinja
