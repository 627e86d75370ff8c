#include "text/jinja_builtins.h"

#include <cstdio>
#include <cstdlib>

#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace moge::text::jinja {

int64_t Call::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  int64_t value = 0;
  if (!at(i).as_integer(value)) fail("expected an integer, got '", at(i).type_name(), "'");
  return value;
}

std::string Call::text(size_t i, std::string_view otherwise) const {
  if (!has(i)) return std::string(otherwise);
  if (!at(i).as_string()) fail("expected a string, got '", at(i).type_name(), "'");
  return *at(i).as_string();
}

Value Call::made(std::string text) const {
  budget.bytes(static_cast<int64_t>(text.size()));
  return Value::string(std::move(text));
}

Value Call::made(std::vector<Value> items) const {
  budget.bytes(static_cast<int64_t>(items.size() * sizeof(Value)));
  return Value::list(std::move(items));
}

void charge_length(const Value& value, Budget& budget) {
  if (const std::string* text = value.as_string()) budget.step(static_cast<int64_t>(text->size() / 16));
}

Value call_builtin(const Builtin& builtin, Interpreter& interpreter, Budget& budget, const Value& self,
                   const Arguments& arguments) {
  Call call{interpreter, budget, self, arguments, {}};
  const auto& parameters = builtin.parameters;
  // Long texts make long work, whatever the function.
  charge_length(self, budget);
  for (const Value& argument : arguments.positional) charge_length(argument, budget);
  if (!parameters.empty() && parameters[0] == "*") return builtin.call(call);
  call.bound.assign(parameters.size(), nullptr);
  if (arguments.positional.size() > parameters.size())
    fail(builtin.name, "() takes at most ", parameters.size(), " arguments, got ",
         arguments.positional.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) call.bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    size_t i = 0;
    while (i < parameters.size() && parameters[i] != name) ++i;
    if (i == parameters.size()) fail(builtin.name, "() got an unexpected keyword argument '", name, "'");
    if (call.bound[i]) fail(builtin.name, "() got multiple values for argument '", name, "'");
    call.bound[i] = &value;
  }
  for (size_t i = 0; i < builtin.num_required; ++i)
    if (!call.bound[i]) fail(builtin.name, "() misses its argument '", parameters[i], "'");
  return builtin.call(call);
}

Value get_path(Interpreter& interpreter, const Value& value, const Value& path, const Value* otherwise) {
  const auto step = [&](const Value& from, const Value& key) {
    Value to = interpreter.get_item(from, key);
    return to.is_undefined() && otherwise ? *otherwise : to;
  };
  const std::string* names = path.as_string();
  if (!names) return step(value, path);
  Value at = value;
  for (const std::string_view name : split(*names, ".", -1)) {
    const bool is_index = name.size() < 10 && all_digits(name);
    at = step(at, is_index ? Value::integer(std::atoll(std::string(name).c_str()))
                           : Value::string(std::string(name)));
  }
  return at;
}

int64_t length(const Value& value) {
  if (const std::string* s = value.as_string()) return string_length(*s);
  if (const List* list = value.as_list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.as_dict()) return static_cast<int64_t>(dict->items.size());
  if (value.is_undefined()) return 0;
  fail("object of type '", value.type_name(), "' has no len()");
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  charge_length(container, budget);
  charge_length(item, budget);
  if (const std::string* text = container.as_string()) {
    if (!item.as_string()) fail("'in <string>' requires string as left operand, not ", item.type_name());
    return find(*text, *item.as_string()) != std::string_view::npos;
  }
  if (const Dict* dict = container.as_dict()) return dict->find(item) != nullptr;
  if (const List* list = container.as_list()) {
    for (const Value& candidate : list->items)
      if (equals(candidate, item, budget)) return true;
    return false;
  }
  if (container.is_undefined()) return false;
  fail("argument of type '", container.type_name(), "' is not iterable");
}

Value replace_in_self(const Call& call) {
  const std::string text = call.self_text();
  const std::string from = call.text(0);
  const std::string to = call.text(1);
  call.budget.bytes(count(text, from) * static_cast<int64_t>(to.size()));  // each is below the budget, 2^28
  return call.made(replace(text, from, to, call.integer(2, -1)));
}

Value percent_format(std::string_view format, const std::vector<Value>& values, Budget& budget) {
  std::string out;
  size_t used = 0;
  while (!format.empty()) {
    const size_t percent = std::min(format.find('%'), format.size());
    out += format.substr(0, percent);
    format.remove_prefix(percent);
    if (format.empty()) break;
    if (format.starts_with("%%")) {
      out += '%';
      format.remove_prefix(2);
      continue;
    }
    // %s, %r, %d, %i, %f and %.3f; flags and widths are not supported.
    size_t at = 1;
    int precision = 6;
    if (format.size() > 2 && format[at] == '.') {
      precision = format[at + 1] - '0';
      if (precision < 0 || precision > 9) fail("unsupported format ", format.substr(0, 4));
      at += 2;
    }
    const char kind = at < format.size() ? format[at] : '\0';
    if (used >= values.size()) fail("not enough arguments for format string");
    const Value& value = values[used++];
    double number = 0;
    int64_t integer = 0;
    if (kind == 's' && at == 1) {
      out += to_text(value, budget);
    } else if (kind == 'r' && at == 1) {
      out += repr(value, budget);
    } else if ((kind == 'd' || kind == 'i') && at == 1 && value.as_integer(integer)) {
      out += std::to_string(integer);
    } else if (kind == 'f' && value.as_number(number)) {
      char buffer[400];
      std::snprintf(buffer, sizeof buffer, "%.*f", precision, number);
      out += buffer;
    } else {
      fail("unsupported format ", format.substr(0, at + 1), " for '", value.type_name(), "'");
    }
    budget.bytes(static_cast<int64_t>(out.size()));
    format.remove_prefix(at + 1);
  }
  if (used < values.size()) fail("not all arguments converted during string formatting");
  budget.bytes(static_cast<int64_t>(out.size()));
  return Value::string(std::move(out));
}

}  // namespace moge::text::jinja
