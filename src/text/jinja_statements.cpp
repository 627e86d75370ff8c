// The interpreter's statements.
#include "text/jinja_interpreter.h"

namespace moge::text::jinja {

namespace {

// Rough sizes of what a scope or a loop holds besides values, for the budget.
constexpr int64_t kScopeBytes = 256;
constexpr int64_t kLoopBytes = 128;
/// Nested evaluations: macros that call themselves end here, long before the stack does.
constexpr int kMaxDepth = 600;

struct Deeper {
  explicit Deeper(int& depth) : depth(depth) {
    if (++depth > kMaxDepth) {
      --depth;
      fail("calls and expressions nested more than ", kMaxDepth, " deep");
    }
  }
  ~Deeper() { --depth; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
  int& depth;
};

}  // namespace

Interpreter::Interpreter(std::unordered_map<std::string, Value> variables, int64_t now) : now_(now) {
  globals_.variables = std::move(variables);
}

std::string Interpreter::render(const Body& body) {
  run(body);
  return std::move(output_);
}

template <class F>
auto Interpreter::in_new_scope(Scope* parent, const F& f) {
  budget_.step(4);  // about what it costs, in evaluations
  auto scope = std::make_unique<Scope>(Scope{.parent = parent});
  // Leaves on every way out, exceptions included.
  struct Leave {
    Interpreter& interpreter;
    Scope* previous;
    std::unique_ptr<Scope>& scope;
    ~Leave() {
      interpreter.scope_ = previous;
      if (scope->captured) interpreter.kept_scopes_.push_back(std::move(scope));
    }
  } leave{*this, std::exchange(scope_, scope.get()), scope};
  return f();
}

Interpreter::Flow Interpreter::run(const Body& body) {
  for (const Stmt& stmt : body) {
    Flow flow = Flow::kNormal;
    try {
      const Deeper deeper(depth_);
      budget_.step();
      flow = run(stmt);
    } catch (const RuntimeError& error) {
      throw TemplateError{stmt.line, error.message};
    }
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run(const Stmt& stmt) {
  using Kind = Stmt::Kind;
  switch (stmt.kind) {
    case Kind::kText:
      print(stmt.text);
      break;
    case Kind::kOutput: {
      const Value value = eval(*stmt.expr);
      if (const std::string* text = value.as_string())
        print(*text);
      else
        print(to_text(value, budget_));
      break;
    }
    case Kind::kSet:
      assign(stmt.target, eval(*stmt.expr));
      break;
    case Kind::kSetBlock: {
      Value text = in_new_scope(scope_, [&] { return Value::string(captured_output(stmt.body)); });
      assign(stmt.target, stmt.expr ? eval_filter(*stmt.expr, &text) : std::move(text));
      break;
    }
    case Kind::kFilterBlock: {
      const Value text = in_new_scope(scope_, [&] { return Value::string(captured_output(stmt.body)); });
      print(to_text(eval_filter(*stmt.expr, &text), budget_));
      break;
    }
    case Kind::kIf:
      return run(eval(*stmt.expr).truthy() ? stmt.body : stmt.otherwise);
    case Kind::kFor:
      return run_for(stmt);
    case Kind::kMacro:
      scope_->variables[stmt.macro->name] = make_macro(*stmt.macro);
      break;
    case Kind::kCallBlock:
      run_call_block(stmt);
      break;
    case Kind::kScope: {
      std::vector<Value> values;
      for (const auto& [target, expr] : stmt.with) values.push_back(eval(*expr));
      return in_new_scope(scope_, [&] {
        for (size_t i = 0; i < values.size(); ++i) assign(stmt.with[i].first, std::move(values[i]));
        return run(stmt.body);
      });
    }
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

/// The items for which the for statement's condition holds.
std::shared_ptr<const List> Interpreter::filtered(const Stmt& stmt, std::shared_ptr<const List> items) {
  if (!stmt.condition) return items;
  auto kept = std::make_shared<List>();
  for (const Value& item : items->items) {
    const bool keep = in_new_scope(scope_, [&] {
      assign(stmt.target, item);
      return eval(*stmt.condition).truthy();
    });
    if (keep) kept->items.push_back(item);
  }
  budget_.bytes(static_cast<int64_t>(kept->items.size() * sizeof(Value)));
  return kept;
}

Interpreter::Flow Interpreter::run_for(const Stmt& stmt) {
  const std::shared_ptr<const List> items = filtered(stmt, iterate(eval(*stmt.expr), budget_));
  if (items->items.empty()) return run(stmt.otherwise);
  budget_.bytes(kLoopBytes);
  Loop& loop = loops_.emplace_back(Loop{.items = items, .changed = {}});
  for (size_t i = 0; i < items->items.size(); ++i) {
    loop.index0 = static_cast<int64_t>(i);
    const Flow flow = in_new_scope(scope_, [&] {
      assign(stmt.target, items->items[i]);
      scope_->variables["loop"] = Value(Value::Data(&loop));
      return run(stmt.body);
    });
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

void Interpreter::run_call_block(const Stmt& stmt) {
  const Value callee = eval(*stmt.expr->items[0]);
  Arguments arguments = eval_arguments(*stmt.expr);
  arguments.keyword.emplace_back("caller", make_macro(*stmt.macro));
  print(to_text(call(callee, arguments), budget_));
}

std::string Interpreter::captured_output(const Body& body) {
  struct Restore {
    Interpreter& interpreter;
    std::string outer;
    ~Restore() { interpreter.output_ = std::move(outer); }
  } restore{*this, std::exchange(output_, {})};
  run(body);
  return std::move(output_);
}

void Interpreter::print(const std::string& text) {
  budget_.bytes(static_cast<int64_t>(text.size()));
  output_ += text;
}

void Interpreter::assign(const Target& target, Value value) {
  if (!target.unpacks) return assign(target.names[0], std::move(value));
  const std::shared_ptr<const List> items = iterate(value, budget_);
  if (items->items.size() != target.names.size())
    fail("cannot unpack ", items->items.size(), " values into ", target.names.size(), " names");
  for (size_t i = 0; i < target.names.size(); ++i) assign(target.names[i], items->items[i]);
}

void Interpreter::assign(const Target::Name& name, Value value) {
  if (name.attribute.empty()) {
    scope_->variables[name.name] = std::move(value);
    return;
  }
  const Value* object = scope_->find(name.name);
  Namespace* target = object ? object->as_namespace() : nullptr;
  if (!target) fail("cannot assign attribute on non-namespace object '", name.name, "'");
  target->attributes[name.attribute] = std::move(value);
}

Namespace* Interpreter::new_namespace() {
  budget_.bytes(kScopeBytes);
  return &namespaces_.emplace_back();
}

Value Interpreter::make_macro(const MacroDefinition& definition) {
  for (Scope* scope = scope_; scope && !scope->captured; scope = scope->parent) {
    budget_.bytes(kScopeBytes);
    scope->captured = true;
  }
  budget_.bytes(kLoopBytes);
  const Macro& macro = macros_.emplace_back(Macro{&definition, scope_});
  return Value::function(
      {.kind = Function::Kind::kMacro, .name = definition.name, .receiver = {}, .macro = &macro});
}

Value Interpreter::call_macro(const Macro& macro, const Arguments& arguments) {
  const MacroDefinition& definition = *macro.definition;
  if (arguments.positional.size() > definition.parameters.size())
    fail("macro '", definition.name, "' takes ", definition.parameters.size(), " arguments, got ",
         arguments.positional.size());
  return in_new_scope(macro.scope, [&] {
    for (const auto& [name, value] : arguments.keyword) {
      bool known = name == "caller";
      for (const Parameter& parameter : definition.parameters) known |= parameter.name == name;
      if (!known) fail("macro '", definition.name, "' takes no keyword argument '", name, "'");
      scope_->variables[name] = value;
    }
    for (size_t i = 0; i < definition.parameters.size(); ++i) {
      const Parameter& parameter = definition.parameters[i];
      if (i < arguments.positional.size()) {
        if (scope_->variables.contains(parameter.name))
          fail("macro '", definition.name, "' got multiple values for '", parameter.name, "'");
        scope_->variables[parameter.name] = arguments.positional[i];
      } else if (!scope_->variables.contains(parameter.name)) {
        scope_->variables[parameter.name] =
            parameter.default_value
                ? eval(*parameter.default_value)
                : Value::undefined(str("parameter '", parameter.name, "' was not provided"));
      }
    }
    return Value::string(captured_output(definition.body));
  });
}

Value Interpreter::eval(const Expr& expr) {
  try {
    const Deeper deeper(depth_);
    budget_.step();
    return eval_unlocated(expr);
  } catch (const RuntimeError& error) {
    throw TemplateError{expr.line, error.message};
  }
}

}  // namespace moge::text::jinja
