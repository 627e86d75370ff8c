#include "text/jinja_sequence_filters.h"

#include <algorithm>

#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace moge::text::jinja {

namespace {

using Args = const Call&;

Value attribute_of(Args call, const Value& item, size_t path) {
  return call.has(path) ? get_path(call.interpreter, item, call.at(path)) : item;
}

/// What sorting, min, max and unique compare: lower case unless case_sensitive.
Value sort_key(Args call, const Value& item, size_t attribute, size_t case_sensitive) {
  Value key = attribute_of(call, item, attribute);
  if (!call.truth(case_sensitive, false) && key.as_string()) return call.made(lower(*key.as_string()));
  return key;
}

Value joined(Args call) {
  const auto items = iterate(call.self, call.budget);
  const std::string separator = call.has(0) ? to_text(call.at(0), call.budget) : "";
  std::string out;
  for (size_t i = 0; i < items->items.size(); ++i) {
    const std::string text = to_text(attribute_of(call, items->items[i], 1), call.budget);
    call.budget.bytes(static_cast<int64_t>(text.size() + separator.size()));
    if (i > 0) out += separator;
    out += text;
  }
  return Value::string(std::move(out));
}

Value first(Args call) {
  const auto items = iterate(call.self, call.budget);
  return items->items.empty() ? Value::undefined("No first item, sequence was empty.") : items->items.front();
}

Value last(Args call) {
  const auto items = iterate(call.self, call.budget);
  return items->items.empty() ? Value::undefined("No last item, sequence was empty.") : items->items.back();
}

Value reversed(Args call) {
  if (const std::string* text = call.self.as_string()) return call.made(reverse(*text));
  std::vector<Value> items = iterate(call.self, call.budget)->items;
  std::reverse(items.begin(), items.end());
  return call.made(std::move(items));
}

Value items_of(Args call) {
  if (call.self.is_undefined()) return Value::list({});
  const Dict* dict = call.self.as_dict();
  if (!dict) fail("Can only get item pairs from a mapping.");
  std::vector<Value> items;
  for (const auto& [key, value] : dict->items) items.push_back(Value::tuple({key, value}));
  return call.made(std::move(items));
}

/// Sorts items by keys, stably.
std::vector<Value> sorted(Args call, const std::vector<Value>& items, const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int sign = compare(keys[a], keys[b], call.budget);
    return reverse ? sign > 0 : sign < 0;
  });
  std::vector<Value> result;
  for (const size_t i : order) result.push_back(items[i]);
  return result;
}

Value sort_filter(Args call) {
  const auto items = iterate(call.self, call.budget);
  std::vector<Value> keys;
  for (const Value& item : items->items) keys.push_back(sort_key(call, item, 2, 1));
  return call.made(sorted(call, items->items, keys, call.truth(0, false)));
}

Value dictsort(Args call) {
  const Dict* dict = call.self.as_dict();
  if (!dict) fail("dictsort: expected a dict, got '", call.self.type_name(), "'");
  const std::string by = call.text(1, "key");
  if (by != "key" && by != "value") fail("You can only sort by either 'key' or 'value'");
  std::vector<Value> pairs;
  std::vector<Value> keys;
  for (const auto& [key, value] : dict->items) {
    pairs.push_back(Value::tuple({key, value}));
    const Value& chosen = by == "key" ? key : value;
    const bool fold = !call.truth(0, false) && chosen.as_string();
    keys.push_back(fold ? call.made(lower(*chosen.as_string())) : chosen);
  }
  return call.made(sorted(call, pairs, keys, call.truth(2, false)));
}

Value extreme(Args call, int sign) {
  const auto items = iterate(call.self, call.budget);
  if (items->items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key = sort_key(call, items->items[0], 1, 0);
  for (size_t i = 1; i < items->items.size(); ++i) {
    Value key = sort_key(call, items->items[i], 1, 0);
    if (compare(key, best_key, call.budget) * sign <= 0) continue;
    best = i;
    best_key = std::move(key);
  }
  return items->items[best];
}

Value unique(Args call) {
  std::vector<Value> kept;
  Dict seen;
  const auto items = iterate(call.self, call.budget);
  for (const Value& item : items->items) {
    Value key = sort_key(call, item, 1, 0);
    call.budget.step();
    if (seen.find(key)) continue;
    seen.set(std::move(key), Value::none());
    kept.push_back(item);
  }
  return call.made(std::move(kept));
}

Value sum(Args call) {
  const auto items = iterate(call.self, call.budget);
  int64_t whole = call.integer(1, 0);
  double real = 0;
  bool is_real = false;
  for (const Value& item : items->items) {
    const Value value = attribute_of(call, item, 0);
    int64_t i = 0;
    double d = 0;
    if (value.as_integer(i)) {
      if (__builtin_add_overflow(whole, i, &whole)) fail("integer overflow");
    } else if (value.as_number(d)) {
      real += d;
      is_real = true;
    } else {
      fail("sum: expected numbers, got '", value.type_name(), "'");
    }
  }
  return is_real ? Value::real(static_cast<double>(whole) + real) : Value::integer(whole);
}

/// map(attribute="a.b", default=x) or map("filter", arguments...).
Value map_filter(Args call) {
  const auto& given = call.arguments;
  const auto items = iterate(call.self, call.budget);
  std::vector<Value> mapped;
  if (!given.positional.empty()) {
    const std::string* name = given.positional[0].as_string();
    const Builtin* filter = name ? find_filter(*name) : nullptr;
    if (!filter) fail("no filter named ", repr(given.positional[0], call.budget));
    const Arguments rest{{given.positional.begin() + 1, given.positional.end()}, given.keyword};
    for (const Value& item : items->items)
      mapped.push_back(call_builtin(*filter, call.interpreter, call.budget, item, rest));
    return call.made(std::move(mapped));
  }
  const Value* path = nullptr;
  const Value* otherwise = nullptr;
  for (const auto& [key, value] : given.keyword) {
    if (key != "attribute" && key != "default") fail("map() got an unexpected keyword argument '", key, "'");
    (key == "attribute" ? path : otherwise) = &value;
  }
  if (!path) fail("map requires a filter argument");
  for (const Value& item : items->items) mapped.push_back(get_path(call.interpreter, item, *path, otherwise));
  return call.made(std::move(mapped));
}

/// select, reject (of the items) and selectattr, rejectattr (of an attribute): by a test, or by truth.
Value select_filter(Args call, bool keep_if, bool of_attribute) {
  const auto& given = call.arguments.positional;
  const size_t test_at = of_attribute ? 1 : 0;
  if (given.size() < test_at) fail("Missing parameter for attribute name");
  const Builtin* test = nullptr;
  Arguments rest;
  if (given.size() > test_at) {
    const std::string* name = given[test_at].as_string();
    test = name ? find_test(*name) : nullptr;
    if (!test) fail("no test named ", repr(given[test_at], call.budget));
    rest = {{given.begin() + static_cast<std::ptrdiff_t>(test_at) + 1, given.end()}, call.arguments.keyword};
  }
  std::vector<Value> kept;
  if (!call.self.truthy()) return Value::list({});
  const auto items = iterate(call.self, call.budget);
  for (const Value& item : items->items) {
    const Value subject = of_attribute ? get_path(call.interpreter, item, given[0]) : item;
    call.budget.step();
    const Value verdict = test ? call_builtin(*test, call.interpreter, call.budget, subject, rest) : subject;
    if (verdict.truthy() == keep_if) kept.push_back(item);
  }
  return call.made(std::move(kept));
}

}  // namespace

const std::vector<Builtin>& sequence_filters() {
  static const std::vector<Builtin> kFilters = {
      {"length", {}, 0, [](Args c) { return Value::integer(length(c.self)); }},
      {"count", {}, 0, [](Args c) { return Value::integer(length(c.self)); }},
      {"list", {}, 0, [](Args c) { return c.made(iterate(c.self, c.budget)->items); }},
      {"join", {"d", "attribute"}, 0, joined},
      {"first", {}, 0, first},
      {"last", {}, 0, last},
      {"reverse", {}, 0, reversed},
      {"items", {}, 0, items_of},
      {"sort", {"reverse", "case_sensitive", "attribute"}, 0, sort_filter},
      {"dictsort", {"case_sensitive", "by", "reverse"}, 0, dictsort},
      {"min", {"case_sensitive", "attribute"}, 0, [](Args c) { return extreme(c, -1); }},
      {"max", {"case_sensitive", "attribute"}, 0, [](Args c) { return extreme(c, 1); }},
      {"unique", {"case_sensitive", "attribute"}, 0, unique},
      {"sum", {"attribute", "start"}, 0, sum},
      {"map", {"*"}, 0, map_filter},
      {"select", {"*"}, 0, [](Args c) { return select_filter(c, true, false); }},
      {"reject", {"*"}, 0, [](Args c) { return select_filter(c, false, false); }},
      {"selectattr", {"*"}, 0, [](Args c) { return select_filter(c, true, true); }},
      {"rejectattr", {"*"}, 0, [](Args c) { return select_filter(c, false, true); }},
  };
  return kFilters;
}

}  // namespace moge::text::jinja
