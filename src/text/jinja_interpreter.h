// Runs a parsed template. One Interpreter renders once.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_builtins.h"

namespace moge::text::jinja {

/// The variables of a template, an iteration or a macro call.
struct Scope {
  Scope* parent = nullptr;
  std::unordered_map<std::string, Value> variables = {};
  bool captured = false;  ///< a macro refers to it: keep it until the end

  const Value* find(const std::string& name) const {
    for (const Scope* scope = this; scope; scope = scope->parent)
      if (const auto at = scope->variables.find(name); at != scope->variables.end()) return &at->second;
    return nullptr;
  }
};

/// A macro as a value: its text and where it was defined.
struct Macro {
  const MacroDefinition* definition;
  Scope* scope;
};

class Interpreter {
 public:
  /// `now`: seconds since 1970 for strftime_now.
  Interpreter(std::unordered_map<std::string, Value> variables, int64_t now);

  /// Throws TemplateError (with the line) or RaisedException.
  std::string render(const Body& body);

  // For builtins. They throw RuntimeError.
  Value get_attribute(const Value& object, const std::string& name);
  Value get_item(const Value& object, const Value& key);
  Namespace* new_namespace();
  int64_t now() const { return now_; }

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  Flow run(const Body& body);
  Flow run(const Stmt& stmt);
  Flow run_for(const Stmt& stmt);
  std::shared_ptr<const List> filtered(const Stmt& stmt, std::shared_ptr<const List> items);
  void run_call_block(const Stmt& stmt);
  std::string captured_output(const Body& body);
  void print(const std::string& text);
  void assign(const Target& target, Value value);
  void assign(const Target::Name& name, Value value);
  Value make_macro(const MacroDefinition& definition);
  Value call_macro(const Macro& macro, const Arguments& arguments);

  Value eval(const Expr& expr);
  Value eval_unlocated(const Expr& expr);
  Value eval_binary(const Expr& expr);
  Value eval_compare(const Expr& expr);
  Value eval_slice(const Expr& expr);
  Value eval_concat(const Expr& expr);
  Value eval_filter(const Expr& expr, const Value* block_output = nullptr);
  Arguments eval_arguments(const Expr& expr);
  Value call(const Value& callee, const Arguments& arguments);

  /// Runs `body` with `scope_` one deeper.
  template <class F>
  auto in_new_scope(Scope* parent, const F& f);

  Budget budget_;
  int64_t now_;
  int depth_ = 0;
  std::string output_;
  Scope globals_;
  Scope* scope_ = &globals_;
  // What values point to without owning it. Deques: addresses stay.
  std::deque<std::unique_ptr<Scope>> kept_scopes_;
  std::deque<Namespace> namespaces_;
  std::deque<Loop> loops_;
  std::deque<Macro> macros_;
};

}  // namespace moge::text::jinja
