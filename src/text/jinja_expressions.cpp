// The interpreter's expressions.
#include <algorithm>
#include <cmath>

#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace moge::text::jinja {

namespace {

const char* symbol(Op op) {
  static constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**", "-", "+"};
  return kSymbols[static_cast<int>(op)];
}

[[noreturn]] void fail_undefined(const Undefined& undefined) {
  fail(undefined.what ? *undefined.what : "value is undefined");
}

[[noreturn]] void fail_operands(Op op, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b})
    if (const Undefined* undefined = value->get<Undefined>()) fail_undefined(*undefined);
  fail("unsupported operand types for ", symbol(op), ": '", a.type_name(), "' and '", b.type_name(), "'");
}

int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

Value integer_arithmetic(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Op::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Op::kSub:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Op::kMul:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Op::kPow:
      if (b < 0) return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
      if (b > 64 && a != 0 && a != 1 && a != -1) fail("integer overflow");
      result = 1;
      if (b > 64) b = 64 + b % 2;  // of 0, 1 and -1 only the parity matters
      for (; b > 0; --b) overflow |= __builtin_mul_overflow(result, a, &result);
      break;
    case Op::kFloorDiv:
    case Op::kMod:
      if (b == 0) fail("division by zero");
      if (b == -1) {  // INT64_MIN / -1 overflows
        overflow = op == Op::kFloorDiv && __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      result = op == Op::kFloorDiv ? floor_div(a, b) : a - floor_div(a, b) * b;
      break;
    default:
      if (b == 0) fail("division by zero");
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
  }
  if (overflow) fail("integer overflow");
  return Value::integer(result);
}

Value real_arithmetic(Op op, double a, double b) {
  if (b == 0 && (op == Op::kDiv || op == Op::kFloorDiv || op == Op::kMod)) fail("division by zero");
  switch (op) {
    case Op::kAdd:
      return Value::real(a + b);
    case Op::kSub:
      return Value::real(a - b);
    case Op::kMul:
      return Value::real(a * b);
    case Op::kPow:
      return Value::real(std::pow(a, b));
    case Op::kFloorDiv:
      return Value::real(std::floor(a / b));
    case Op::kMod: {
      const double remainder = std::fmod(a, b);
      return Value::real(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
    }
    default:
      return Value::real(a / b);
  }
}

Value repeated(const std::string& text, int64_t times, Budget& budget) {
  if (text.empty() || times <= 0) return Value::string("");
  const auto size = static_cast<int64_t>(text.size());
  times = std::min(times, (int64_t{1} << 40) / size);  // still beyond any budget
  budget.bytes(size * times);
  std::string result;
  result.reserve(static_cast<size_t>(size * times));
  for (int64_t i = 0; i < times; ++i) result += text;
  return Value::string(std::move(result));
}

/// Python's slice.indices: the first index, the step and how many.
struct Indices {
  int64_t start;
  int64_t step;
  int64_t count;
};

Indices slice_indices(const Value& start, const Value& stop, const Value& step, int64_t length) {
  const auto integer_or = [](const Value& value, int64_t otherwise) {
    int64_t i = otherwise;
    if (!value.is_none() && !value.as_integer(i)) fail("slice indices must be integers or None");
    return i;
  };
  const int64_t by = integer_or(step, 1);
  if (by == 0) fail("slice step cannot be zero");
  const int64_t low = by > 0 ? 0 : -1;
  const int64_t high = by > 0 ? length : length - 1;
  const auto clamp = [&](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    const int64_t i = std::clamp(integer_or(value, 0), -length - 1, length + 1);
    return std::clamp(i < 0 ? i + length : i, low, high);
  };
  const int64_t first = clamp(start, by > 0 ? low : high);
  const int64_t end = clamp(stop, by > 0 ? high : low);
  const int64_t distance = by > 0 ? end - first : first - end;
  const int64_t stride = by > 0 ? by : (by == INT64_MIN ? INT64_MAX : -by);
  return {first, by, distance > 0 ? (distance - 1) / stride + 1 : 0};
}

}  // namespace

Value Interpreter::eval_unlocated(const Expr& expr) {
  using Kind = Expr::Kind;
  switch (expr.kind) {
    case Kind::kLiteral:
      return expr.value;
    case Kind::kName: {
      if (const Value* value = scope_->find(expr.name)) return *value;
      if (find_global(expr.name))
        return Value::function({.kind = Function::Kind::kGlobal, .name = expr.name, .receiver = {}});
      return Value::undefined(str("'", expr.name, "' is undefined"));
    }
    case Kind::kList:
    case Kind::kTuple: {
      std::vector<Value> items;
      for (const ExprPtr& item : expr.items) items.push_back(eval(*item));
      budget_.bytes(static_cast<int64_t>(items.size() * sizeof(Value)));
      return expr.kind == Kind::kList ? Value::list(std::move(items)) : Value::tuple(std::move(items));
    }
    case Kind::kDict: {
      Dict dict;
      for (size_t i = 0; i < expr.items.size(); i += 2) {
        Value key = eval(*expr.items[i]);
        charge_length(key, budget_);
        dict.set(std::move(key), eval(*expr.items[i + 1]));
      }
      budget_.bytes(static_cast<int64_t>(expr.items.size() * sizeof(Value)));
      return Value::dict(std::move(dict));
    }
    case Kind::kAttribute:
      return get_attribute(eval(*expr.items[0]), expr.name);
    case Kind::kSubscript: {
      const Value object = eval(*expr.items[0]);
      return get_item(object, eval(*expr.items[1]));
    }
    case Kind::kSlice:
      return eval_slice(expr);
    case Kind::kCall: {
      const Value callee = eval(*expr.items[0]);
      return call(callee, eval_arguments(expr));
    }
    case Kind::kFilter:
      return eval_filter(expr);
    case Kind::kTest: {
      const Value self = eval(*expr.items[0]);
      return call_builtin(*expr.builtin, *this, budget_, self, eval_arguments(expr));
    }
    case Kind::kUnary: {
      const Value value = eval(*expr.items[0]);
      const Op op = expr.ops[0] == Op::kNeg ? Op::kSub : Op::kAdd;
      int64_t i = 0;
      double d = 0;
      if (value.as_integer(i)) return integer_arithmetic(op, 0, i);
      if (value.as_number(d)) return Value::real(op == Op::kSub ? -d : d);
      fail_operands(op, Value::integer(0), value);
    }
    case Kind::kBinary:
      return eval_binary(expr);
    case Kind::kConcat:
      return eval_concat(expr);
    case Kind::kCompare:
      return eval_compare(expr);
    case Kind::kNot:
      return Value::boolean(!eval(*expr.items[0]).truthy());
    case Kind::kAnd:
    case Kind::kOr: {
      Value left = eval(*expr.items[0]);
      return left.truthy() == (expr.kind == Kind::kOr) ? left : eval(*expr.items[1]);
    }
    case Kind::kConditional:
      if (eval(*expr.items[1]).truthy()) return eval(*expr.items[0]);
      return expr.items[2] ? eval(*expr.items[2])
                           : Value::undefined("the condition was false and there is no else");
  }
  return {};
}

Value Interpreter::eval_binary(const Expr& expr) {
  const Value a = eval(*expr.items[0]);
  const Value b = eval(*expr.items[1]);
  const Op op = expr.ops[0];
  int64_t i = 0;
  int64_t j = 0;
  double x = 0;
  double y = 0;
  if (a.as_integer(i) && b.as_integer(j)) return integer_arithmetic(op, i, j);
  if (a.as_number(x) && b.as_number(y)) return real_arithmetic(op, x, y);
  if (op == Op::kAdd && a.as_string() && b.as_string()) {
    budget_.bytes(static_cast<int64_t>(a.as_string()->size() + b.as_string()->size()));
    return Value::string(*a.as_string() + *b.as_string());
  }
  if (op == Op::kAdd && a.as_list() && b.as_list() && a.as_list()->is_tuple == b.as_list()->is_tuple) {
    std::vector<Value> items = a.as_list()->items;
    items.insert(items.end(), b.as_list()->items.begin(), b.as_list()->items.end());
    budget_.bytes(static_cast<int64_t>(items.size() * sizeof(Value)));
    return a.as_list()->is_tuple ? Value::tuple(std::move(items)) : Value::list(std::move(items));
  }
  if (op == Op::kMul && a.as_string() && b.as_integer(j)) return repeated(*a.as_string(), j, budget_);
  if (op == Op::kMod && a.as_string()) {
    const List* values = b.as_list();
    return percent_format(*a.as_string(), values && values->is_tuple ? values->items : std::vector<Value>{b},
                          budget_);
  }
  fail_operands(op, a, b);
}

Value Interpreter::eval_concat(const Expr& expr) {
  std::string text;
  for (const ExprPtr& item : expr.items) {
    const std::string part = to_text(eval(*item), budget_);
    budget_.bytes(static_cast<int64_t>(part.size()));
    text += part;
  }
  return Value::string(std::move(text));
}

Value Interpreter::eval_compare(const Expr& expr) {
  Value left = eval(*expr.items[0]);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = eval(*expr.items[i + 1]);
    bool holds = false;
    switch (expr.ops[i]) {
      case Op::kEq:
        holds = equals(left, right, budget_);
        break;
      case Op::kNe:
        holds = !equals(left, right, budget_);
        break;
      case Op::kIn:
        holds = contains(right, left, budget_);
        break;
      case Op::kNotIn:
        holds = !contains(right, left, budget_);
        break;
      case Op::kLt:
        holds = compare(left, right, budget_) < 0;
        break;
      case Op::kLe:
        holds = compare(left, right, budget_) <= 0;
        break;
      case Op::kGt:
        holds = compare(left, right, budget_) > 0;
        break;
      default:
        holds = compare(left, right, budget_) >= 0;
        break;
    }
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::eval_slice(const Expr& expr) {
  const Value object = eval(*expr.items[0]);
  const auto bound = [&](size_t i) { return expr.items[i] ? eval(*expr.items[i]) : Value::none(); };
  const Value start = bound(1);
  const Value stop = bound(2);
  const Value step = bound(3);
  if (const std::string* text = object.as_string()) {
    budget_.bytes(static_cast<int64_t>(text->size() * sizeof(std::string_view)));
    const std::vector<std::string_view> all = characters(*text);
    const Indices at = slice_indices(start, stop, step, static_cast<int64_t>(all.size()));
    std::string result;
    for (int64_t i = 0, k = at.start; i < at.count; ++i, k += at.step) result += all[static_cast<size_t>(k)];
    return Value::string(std::move(result));
  }
  if (const Undefined* undefined = object.get<Undefined>()) fail_undefined(*undefined);
  const List* list = object.as_list();
  if (!list) fail("'", object.type_name(), "' object cannot be sliced");
  const Indices at = slice_indices(start, stop, step, static_cast<int64_t>(list->items.size()));
  std::vector<Value> result;
  budget_.bytes(at.count * static_cast<int64_t>(sizeof(Value)));
  for (int64_t i = 0, k = at.start; i < at.count; ++i, k += at.step)
    result.push_back(list->items[static_cast<size_t>(k)]);
  return list->is_tuple ? Value::tuple(std::move(result)) : Value::list(std::move(result));
}

Value Interpreter::eval_filter(const Expr& expr, const Value* block_output) {
  const Expr* inner = expr.items[0].get();
  Value self;
  if (!inner)
    self = *block_output;
  else
    self = block_output ? eval_filter(*inner, block_output) : eval(*inner);
  return call_builtin(*expr.builtin, *this, budget_, self, eval_arguments(expr));
}

Arguments Interpreter::eval_arguments(const Expr& expr) {
  Arguments arguments;
  for (size_t i = 1; i < expr.items.size(); ++i) arguments.positional.push_back(eval(*expr.items[i]));
  for (const auto& [name, value] : expr.keywords) arguments.keyword.emplace_back(name, eval(*value));
  return arguments;
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (const Undefined* undefined = callee.get<Undefined>()) fail_undefined(*undefined);
  const Function* function = callee.as_function();
  if (!function) fail("'", callee.type_name(), "' object is not callable");
  if (function->kind == Function::Kind::kMacro) return call_macro(*function->macro, arguments);
  const Builtin* builtin = function->kind == Function::Kind::kMethod
                               ? find_method(function->receiver, function->name)
                               : find_global(function->name);
  return call_builtin(*builtin, *this, budget_, function->receiver, arguments);
}

Value Interpreter::get_attribute(const Value& object, const std::string& name) {
  if (const Undefined* undefined = object.get<Undefined>()) fail_undefined(*undefined);
  if (const Namespace* space = object.as_namespace()) {
    const auto at = space->attributes.find(name);
    return at == space->attributes.end() ? Value::undefined(str("namespace has no attribute '", name, "'"))
                                         : at->second;
  }
  if (const Loop* loop = object.as_loop()) {
    const auto length = static_cast<int64_t>(loop->items->items.size());
    const auto item = [&](int64_t i) {
      return i >= 0 && i < length ? loop->items->items[static_cast<size_t>(i)]
                                  : Value::undefined("there is no such item");
    };
    if (name == "index") return Value::integer(loop->index0 + 1);
    if (name == "index0") return Value::integer(loop->index0);
    if (name == "revindex") return Value::integer(length - loop->index0);
    if (name == "revindex0") return Value::integer(length - loop->index0 - 1);
    if (name == "first") return Value::boolean(loop->index0 == 0);
    if (name == "last") return Value::boolean(loop->index0 + 1 == length);
    if (name == "length") return Value::integer(length);
    if (name == "previtem") return item(loop->index0 - 1);
    if (name == "nextitem") return item(loop->index0 + 1);
    if (name == "depth") return Value::integer(1);  // only recursive loops go deeper
    if (name == "depth0") return Value::integer(0);
  }
  if (find_method(object, name))
    return Value::function({.kind = Function::Kind::kMethod, .name = name, .receiver = object});
  if (const Dict* dict = object.as_dict())
    if (const Value* value = dict->find(name)) return *value;
  return Value::undefined(str("'", object.type_name(), " object' has no attribute '", name, "'"));
}

Value Interpreter::get_item(const Value& object, const Value& key) {
  if (const Undefined* undefined = object.get<Undefined>()) fail_undefined(*undefined);
  charge_length(key, budget_);
  if (const Dict* dict = object.as_dict()) {
    if (key.is_undefined()) return key;
    if (const Value* value = dict->find(key)) return *value;
  }
  int64_t index = 0;
  if (key.as_integer(index)) {
    const List* list = object.as_list();
    const std::string* text = object.as_string();
    if (list || text) {
      charge_length(object, budget_);
      const int64_t size = list ? static_cast<int64_t>(list->items.size()) : string_length(*text);
      if (index < 0) index += size;
      if (index < 0 || index >= size) return Value::undefined(str("index ", index, " is out of range"));
      if (list) return list->items[static_cast<size_t>(index)];
      const size_t begin = byte_offset(*text, index);
      return Value::string(text->substr(begin, byte_offset(std::string_view(*text).substr(begin), 1)));
    }
  }
  if (const std::string* name = key.as_string()) return get_attribute(object, *name);
  return Value::undefined(str("'", object.type_name(), " object' has no item ", repr(key, budget_)));
}

}  // namespace moge::text::jinja
