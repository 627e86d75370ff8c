#include "text/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/jinja_strings.h"
#include "text/utf8.h"

namespace moge::text::jinja {

namespace {

int depth_of(const Value& value) {
  if (const List* list = value.as_list()) return list->depth;
  if (const Dict* dict = value.as_dict()) return dict->depth;
  if (const Function* function = value.as_function()) return depth_of(function->receiver);
  return 0;
}

int checked_depth(int inner) {
  if (inner >= kMaxNesting) fail("values nested more than ", kMaxNesting, " deep");
  return inner + 1;
}

Value make_list(std::vector<Value> items, bool is_tuple) {
  auto list = std::make_shared<List>();
  int inner = 0;
  for (const Value& item : items) inner = std::max(inner, depth_of(item));
  list->items = std::move(items);
  list->is_tuple = is_tuple;
  list->depth = checked_depth(inner);
  return Value(Value::Data(std::shared_ptr<const List>(std::move(list))));
}

/// Equal keys have equal strings, different ones different strings.
std::string key_of(const Value& key) {
  double number = 0;
  int64_t integer = 0;
  if (const std::string* s = key.as_string()) return std::string(1, 's').append(*s);
  if (key.as_integer(integer)) return str('n', integer);
  if (key.as_number(number)) {
    const bool is_integer = std::trunc(number) == number && std::abs(number) < 0x1p62;
    return is_integer ? str('n', static_cast<int64_t>(number)) : str('n', float_text(number));
  }
  if (key.is_none()) return "0";
  const List* list = key.as_list();
  if (!list || !list->is_tuple) fail("unhashable type: '", key.type_name(), "'");
  if (list->items.size() > 100) fail("a tuple of more than 100 items cannot be a key");
  std::string all = "t";
  for (const Value& item : list->items) {
    if (item.as_list()) fail("tuples inside tuples cannot be keys");
    const std::string one = key_of(item);
    all += str(one.size(), ':', one);
  }
  return all;
}

void append_repr(const Value& value, Budget& budget, std::string& out) {
  budget.step();
  budget.bytes(2);  // what separates it from its neighbours
  const size_t before = out.size();
  if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (const bool* b = value.get<bool>()) {
    out += *b ? "True" : "False";
  } else if (const int64_t* i = value.get<int64_t>()) {
    out += std::to_string(*i);
  } else if (const double* d = value.get<double>()) {
    out += float_text(*d);
  } else if (const std::string* s = value.as_string()) {
    out += string_repr(*s);
  } else if (const List* list = value.as_list()) {
    out += list->is_tuple ? '(' : '[';
    for (size_t k = 0; k < list->items.size(); ++k) {
      if (k > 0) out += ", ";
      append_repr(list->items[k], budget, out);
    }
    if (list->is_tuple && list->items.size() == 1) out += ',';
    out += list->is_tuple ? ')' : ']';
    return;  // what is inside was charged
  } else if (const Dict* dict = value.as_dict()) {
    out += '{';
    for (size_t k = 0; k < dict->items.size(); ++k) {
      if (k > 0) out += ", ";
      append_repr(dict->items[k].first, budget, out);
      out += ": ";
      append_repr(dict->items[k].second, budget, out);
    }
    out += '}';
    return;
  } else {
    out += str("<", value.type_name(), ">");
  }
  budget.bytes(static_cast<int64_t>(out.size() - before));
}

}  // namespace

Value Value::undefined(std::string what) {
  return Value(Data(Undefined{std::make_shared<const std::string>(std::move(what))}));
}

Value Value::list(std::vector<Value> items) {
  return make_list(std::move(items), false);
}

Value Value::tuple(std::vector<Value> items) {
  return make_list(std::move(items), true);
}

Value Value::dict(Dict dict) {
  int inner = 0;
  for (const auto& [key, value] : dict.items) inner = std::max({inner, depth_of(key), depth_of(value)});
  dict.depth = checked_depth(inner);
  return Value(Data(std::make_shared<const Dict>(std::move(dict))));
}

Value Value::function(Function function) {
  return Value(Data(std::make_shared<const Function>(std::move(function))));
}

bool Value::as_integer(int64_t& out) const {
  if (const bool* b = get<bool>()) return out = *b, true;
  if (const int64_t* i = get<int64_t>()) return out = *i, true;
  return false;
}

bool Value::as_number(double& out) const {
  if (const double* d = get<double>()) return out = *d, true;
  int64_t i = 0;
  if (!as_integer(i)) return false;
  out = static_cast<double>(i);
  return true;
}

const char* Value::type_name() const {
  static constexpr const char* kNames[] = {"Undefined", "NoneType",    "bool",    "int",
                                           "float",     "str",         "list",    "dict",
                                           "Namespace", "LoopContext", "function"};
  if (const List* list = as_list(); list && list->is_tuple) return "tuple";
  return kNames[data_.index()];
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  double number = 0;
  if (as_number(number)) return number != 0;
  if (const std::string* s = as_string()) return !s->empty();
  if (const List* list = as_list()) return !list->items.empty();
  if (const Dict* dict = as_dict()) return !dict->items.empty();
  return true;
}

void Dict::set(Value key, Value value) {
  const auto [at, is_new] = index_.try_emplace(key_of(key), items.size());
  if (is_new)
    items.emplace_back(std::move(key), std::move(value));
  else
    items[at->second].second = std::move(value);
}

const Value* Dict::find(const Value& key) const {
  const auto at = index_.find(key_of(key));
  return at == index_.end() ? nullptr : &items[at->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto at = index_.find(std::string(1, 's').append(key));
  return at == index_.end() ? nullptr : &items[at->second].second;
}

bool equals(const Value& a, const Value& b, Budget& budget) {
  budget.step();
  int64_t i = 0;
  int64_t j = 0;
  if (a.as_integer(i) && b.as_integer(j)) return i == j;
  double x = 0;
  double y = 0;
  if (a.as_number(x) && b.as_number(y)) return x == y;
  if (a.data().index() != b.data().index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (const std::string* s = a.as_string()) {
    budget.step(static_cast<int64_t>(s->size() / 64));
    return *s == *b.as_string();
  }
  if (const List* list = a.as_list()) {
    const List* other = b.as_list();
    if (list->is_tuple != other->is_tuple || list->items.size() != other->items.size()) return false;
    for (size_t k = 0; k < list->items.size(); ++k)
      if (!equals(list->items[k], other->items[k], budget)) return false;
    return true;
  }
  if (const Dict* dict = a.as_dict()) {
    const Dict* other = b.as_dict();
    if (dict->items.size() != other->items.size()) return false;
    for (const auto& [key, value] : dict->items) {
      const Value* found = other->find(key);
      if (!found || !equals(value, *found, budget)) return false;
    }
    return true;
  }
  return a.as_namespace() == b.as_namespace() && a.as_loop() == b.as_loop() &&
         a.as_function() == b.as_function();
}

int compare(const Value& a, const Value& b, Budget& budget) {
  budget.step();
  int64_t i = 0;
  int64_t j = 0;
  if (a.as_integer(i) && b.as_integer(j)) return i < j ? -1 : i > j;
  double x = 0;
  double y = 0;
  if (a.as_number(x) && b.as_number(y)) return x < y ? -1 : x > y;
  if (a.as_string() && b.as_string()) {
    budget.step(static_cast<int64_t>(a.as_string()->size() / 64));
    const int order = a.as_string()->compare(*b.as_string());  // UTF-8 sorts as its code points do
    return order < 0 ? -1 : order > 0;
  }
  const List* list = a.as_list();
  const List* other = b.as_list();
  if (!list || !other || list->is_tuple != other->is_tuple)
    fail("'<' not supported between instances of '", a.type_name(), "' and '", b.type_name(), "'");
  for (size_t k = 0; k < list->items.size() && k < other->items.size(); ++k)
    if (!equals(list->items[k], other->items[k], budget))
      return compare(list->items[k], other->items[k], budget);
  return list->items.size() < other->items.size() ? -1 : list->items.size() > other->items.size();
}

std::shared_ptr<const List> iterate(const Value& value, Budget& budget) {
  if (const auto* list = value.get<std::shared_ptr<const List>>()) {
    budget.step(static_cast<int64_t>((*list)->items.size()));  // it will be walked
    return *list;
  }
  auto items = std::make_shared<List>();
  if (const Dict* dict = value.as_dict()) {
    for (const auto& [key, unused] : dict->items) items->items.push_back(key);
  } else if (const std::string* s = value.as_string()) {
    budget.bytes(static_cast<int64_t>(s->size()) * 64);
    for (std::string_view rest = *s; !rest.empty();) {
      const auto length = static_cast<size_t>(utf8_step(rest).length);
      items->items.push_back(Value::string(std::string(rest.substr(0, length))));
      rest.remove_prefix(length);
    }
  } else if (!value.is_undefined()) {
    fail("'", value.type_name(), "' object is not iterable");
  }
  budget.step(static_cast<int64_t>(items->items.size()));
  budget.bytes(static_cast<int64_t>(items->items.size() * sizeof(Value)));
  return items;
}

std::string float_text(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  // The shortest digits that read back as d, laid out as Python does: fixed for exponents -4..15.
  char buffer[64];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
  const std::string text(buffer, scientific.ptr);
  const int exponent = std::atoi(text.c_str() + text.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed);
  const std::string plain(buffer, fixed.ptr);
  return plain.find('.') == std::string::npos ? plain + ".0" : plain;
}

std::string to_text(const Value& value, Budget& budget) {
  if (const std::string* s = value.as_string()) return *s;
  if (value.is_undefined()) return "";
  return repr(value, budget);
}

std::string repr(const Value& value, Budget& budget) {
  std::string out;
  append_repr(value, budget, out);
  return out;
}

}  // namespace moge::text::jinja
