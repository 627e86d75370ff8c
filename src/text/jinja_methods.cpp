// Methods of strings, lists and dicts (Python's, those that change nothing), of `loop`, and global functions.
#include <ctime>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_strings.h"

namespace moge::text::jinja {

namespace {

using Args = const Call&;

std::string_view self_string(Args call) {
  return *call.self.as_string();
}

std::optional<std::string_view> optional_text(Args call, size_t i) {
  if (!call.has(i)) return {};
  if (!call.at(i).as_string()) fail("expected a string, got '", call.at(i).type_name(), "'");
  return *call.at(i).as_string();
}

Value stripped(Args call, Side side) {
  const auto set = optional_text(call, 0);
  if (set && set->size() > 256) fail("strip() of more than 256 bytes of characters");
  return call.made(std::string(strip(self_string(call), side, set)));
}

/// startswith and endswith, of one string or a tuple of them.
Value begins_or_ends(Args call, bool (*matches)(std::string_view, std::string_view)) {
  const List* choices = call.at(0).as_list();
  if (!choices) return Value::boolean(matches(self_string(call), call.text(0)));
  for (const Value& choice : choices->items)
    if (choice.as_string() && matches(self_string(call), *choice.as_string())) return Value::boolean(true);
  return Value::boolean(false);
}

Value parts(Args call, const std::vector<std::string_view>& texts) {
  std::vector<Value> items;
  for (const std::string_view text : texts) items.push_back(Value::string(std::string(text)));
  return call.made(std::move(items));
}

/// Room for `num_parts` of the receiver, as views and as values, before they are made.
void charge_parts(Args call, int64_t num_parts) {
  constexpr int64_t kPartBytes = 64;
  call.budget.bytes(static_cast<int64_t>(self_string(call).size()) + num_parts * kPartBytes);
}

template <auto splitter>
Value split_by(Args call) {
  const auto separator = optional_text(call, 0);
  if (separator && separator->empty()) fail("empty separator");
  const auto most_words = static_cast<int64_t>(self_string(call).size() / 2) + 1;
  charge_parts(call, separator ? count(self_string(call), *separator) + 1 : most_words);
  return parts(call, splitter(self_string(call), separator, call.integer(1, -1)));
}

Value lines(Args call) {
  charge_parts(call, static_cast<int64_t>(self_string(call).size()) / 8 + count(self_string(call), "\n") + 1);
  return parts(call, split_lines(self_string(call)));
}

Value position(Args call, size_t (*search)(std::string_view, std::string_view)) {
  const size_t at = search(self_string(call), call.text(0));
  return Value::integer(at == std::string_view::npos ? -1 : string_length(self_string(call).substr(0, at)));
}

Value joined(Args call) {
  std::string out;
  const auto items = iterate(call.at(0), call.budget);
  for (size_t i = 0; i < items->items.size(); ++i) {
    const std::string* text = items->items[i].as_string();
    if (!text) fail("sequence item ", i, ": expected str instance, ", items->items[i].type_name(), " found");
    call.budget.bytes(static_cast<int64_t>(text->size() + self_string(call).size()));
    if (i > 0) out += self_string(call);
    out += *text;
  }
  return Value::string(std::move(out));
}

Value without(Args call, bool prefix) {
  const std::string affix = call.text(0);
  std::string_view text = self_string(call);
  if (prefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!prefix && !affix.empty() && text.ends_with(affix)) text.remove_suffix(affix.size());
  return call.made(std::string(text));
}

const std::vector<Builtin>& string_methods() {
  static const std::vector<Builtin> kMethods = {
      {"strip", {"chars"}, 0, [](Args c) { return stripped(c, Side::kBoth); }},
      {"lstrip", {"chars"}, 0, [](Args c) { return stripped(c, Side::kLeft); }},
      {"rstrip", {"chars"}, 0, [](Args c) { return stripped(c, Side::kRight); }},
      {"split", {"sep", "maxsplit"}, 0, split_by<split>},
      {"rsplit", {"sep", "maxsplit"}, 0, split_by<rsplit>},
      {"splitlines", {}, 0, lines},
      {"startswith",
       {"prefix"},
       1,
       [](Args c) {
         return begins_or_ends(c, [](std::string_view s, std::string_view p) { return s.starts_with(p); });
       }},
      {"endswith",
       {"suffix"},
       1,
       [](Args c) {
         return begins_or_ends(c, [](std::string_view s, std::string_view p) { return s.ends_with(p); });
       }},
      {"removeprefix", {"prefix"}, 1, [](Args c) { return without(c, true); }},
      {"removesuffix", {"suffix"}, 1, [](Args c) { return without(c, false); }},
      {"replace", {"old", "new", "count"}, 2, replace_in_self},
      {"find",
       {"sub"},
       1,
       [](Args c) { return position(c, [](std::string_view s, std::string_view p) { return find(s, p); }); }},
      {"rfind", {"sub"}, 1, [](Args c) { return position(c, rfind); }},
      {"index",
       {"sub"},
       1,
       [](Args c) {
         const Value at = position(c, [](std::string_view s, std::string_view p) { return find(s, p); });
         if (*at.get<int64_t>() < 0) fail("substring not found");
         return at;
       }},
      {"count", {"sub"}, 1, [](Args c) { return Value::integer(count(self_string(c), c.text(0))); }},
      {"join", {"iterable"}, 1, joined},
      {"upper", {}, 0, [](Args c) { return c.made(upper(self_string(c))); }},
      {"lower", {}, 0, [](Args c) { return c.made(lower(self_string(c))); }},
      {"title", {}, 0, [](Args c) { return c.made(title(self_string(c))); }},
      {"capitalize", {}, 0, [](Args c) { return c.made(capitalize(self_string(c))); }},
      {"isdigit", {}, 0, [](Args c) { return Value::boolean(all_digits(self_string(c))); }},
      {"isnumeric", {}, 0, [](Args c) { return Value::boolean(all_digits(self_string(c))); }},
      {"isalpha", {}, 0, [](Args c) { return Value::boolean(all_letters(self_string(c), false)); }},
      {"isalnum", {}, 0, [](Args c) { return Value::boolean(all_letters(self_string(c), true)); }},
      {"isspace", {}, 0, [](Args c) { return Value::boolean(all_space(self_string(c))); }},
      {"isupper", {}, 0, [](Args c) { return Value::boolean(has_case(self_string(c), true)); }},
      {"islower", {}, 0, [](Args c) { return Value::boolean(has_case(self_string(c), false)); }},
  };
  return kMethods;
}

const std::vector<Builtin>& dict_methods() {
  static const std::vector<Builtin> kMethods = {
      {"items",
       {},
       0,
       [](Args c) {
         std::vector<Value> items;
         for (const auto& [key, value] : c.self.as_dict()->items) items.push_back(Value::tuple({key, value}));
         return c.made(std::move(items));
       }},
      {"keys",
       {},
       0,
       [](Args c) {
         std::vector<Value> items;
         for (const auto& [key, value] : c.self.as_dict()->items) items.push_back(key);
         return c.made(std::move(items));
       }},
      {"values",
       {},
       0,
       [](Args c) {
         std::vector<Value> items;
         for (const auto& [key, value] : c.self.as_dict()->items) items.push_back(value);
         return c.made(std::move(items));
       }},
      {"get",
       {"key", "default"},
       1,
       [](Args c) {
         const Value* value = c.self.as_dict()->find(c.at(0));
         return value ? *value : c.bound[1] ? c.at(1) : Value::none();
       }},
      {"copy", {}, 0, [](Args c) { return c.self; }},
  };
  return kMethods;
}

const std::vector<Builtin>& list_methods() {
  static const std::vector<Builtin> kMethods = {
      {"index",
       {"value"},
       1,
       [](Args c) {
         const auto& items = c.self.as_list()->items;
         for (size_t i = 0; i < items.size(); ++i)
           if (equals(items[i], c.at(0), c.budget)) return Value::integer(static_cast<int64_t>(i));
         fail("the value is not in the list");
       }},
      {"count",
       {"value"},
       1,
       [](Args c) {
         int64_t count = 0;
         for (const Value& item : c.self.as_list()->items) count += equals(item, c.at(0), c.budget);
         return Value::integer(count);
       }},
      {"copy", {}, 0, [](Args c) { return c.self; }},
  };
  return kMethods;
}

const std::vector<Builtin>& loop_methods() {
  static const std::vector<Builtin> kMethods = {
      {"cycle",
       {"*"},
       0,
       [](Args c) {
         const auto& values = c.arguments.positional;
         if (values.empty()) fail("no items for cycling given");
         return values[static_cast<size_t>(c.self.as_loop()->index0) % values.size()];
       }},
      {"changed",
       {"*"},
       0,
       [](Args c) {
         Loop* loop = *c.self.get<Loop*>();
         Value now = Value::list(c.arguments.positional);
         const bool same = equals(loop->changed, now, c.budget);
         loop->changed = std::move(now);
         return Value::boolean(!same);
       }},
  };
  return kMethods;
}

Value range(Args call) {
  constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox
  const auto& given = call.arguments.positional;
  if (given.empty() || given.size() > 3 || !call.arguments.keyword.empty())
    fail("range() takes 1 to 3 arguments");
  int64_t values[3] = {0, 0, 1};
  for (size_t i = 0; i < given.size(); ++i)
    if (!given[i].as_integer(values[given.size() == 1 ? 1 : i])) fail("range() takes integers");
  const auto [start, stop, step] = values;
  if (step == 0) fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    items.push_back(Value::integer(i));
    if (items.size() > kMaxRange) fail("range too big, maximum size for range is ", kMaxRange);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return call.made(std::move(items));
}

/// A namespace from a dict and keywords.
Value make_namespace(Args call) {
  Namespace* space = call.interpreter.new_namespace();
  for (const Value& from : call.arguments.positional) {
    const Dict* dict = from.as_dict();
    if (!dict) fail("namespace() takes a dict and keyword arguments");
    for (const auto& [key, value] : dict->items)
      if (const std::string* name = key.as_string()) space->attributes[*name] = value;
  }
  for (const auto& [name, value] : call.arguments.keyword) space->attributes[name] = value;
  return Value(Value::Data(space));
}

Value make_dict(Args call) {
  Dict dict;
  for (const Value& from : call.arguments.positional) {
    if (!from.as_dict()) fail("dict() takes a dict and keyword arguments");
    for (const auto& [key, value] : from.as_dict()->items) dict.set(key, value);
  }
  for (const auto& [name, value] : call.arguments.keyword) dict.set(Value::string(name), value);
  call.budget.bytes(static_cast<int64_t>(dict.items.size() * 2 * sizeof(Value)));
  return Value::dict(std::move(dict));
}

Value strftime_now(Args call) {
  const std::time_t now = call.interpreter.now();
  std::tm local{};
  localtime_r(&now, &local);
  const std::string format = call.text(0);
  if (format.size() > 256) fail("strftime_now: format of more than 256 bytes");
  char text[4096];
  const size_t size = std::strftime(text, sizeof text, format.c_str(), &local);
  return call.made(std::string(text, size));
}

const std::vector<Builtin>& globals() {
  static const std::vector<Builtin> kGlobals = {
      {"range", {"*"}, 0, range},
      {"namespace", {"*"}, 0, make_namespace},
      {"dict", {"*"}, 0, make_dict},
      {"raise_exception",
       {"message"},
       1,
       [](Args c) -> Value { throw RaisedException{to_text(c.at(0), c.budget)}; }},
      {"strftime_now", {"format"}, 1, strftime_now},
  };
  return kGlobals;
}

const Builtin* find_in(const std::vector<Builtin>& table, std::string_view name) {
  for (const Builtin& builtin : table)
    if (builtin.name == name) return &builtin;
  return nullptr;
}

}  // namespace

const Builtin* find_global(std::string_view name) {
  return find_in(globals(), name);
}

const Builtin* find_method(const Value& receiver, std::string_view name) {
  if (receiver.as_string()) return find_in(string_methods(), name);
  if (receiver.as_dict()) return find_in(dict_methods(), name);
  if (receiver.as_list()) return find_in(list_methods(), name);
  if (receiver.as_loop()) return find_in(loop_methods(), name);
  return nullptr;
}

}  // namespace moge::text::jinja
