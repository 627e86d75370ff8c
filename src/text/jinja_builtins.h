// The functions that come with the language: filters, tests, methods of strings, lists and dicts, globals.
// Each is one row of a table: name, parameters, code.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace moge::text::jinja {

class Interpreter;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

/// One call of a builtin, with its arguments matched to the parameters.
struct Call {
  Interpreter& interpreter;
  Budget& budget;
  const Value& self;                ///< what a filter or test is applied to; a method's receiver
  const Arguments& arguments;       ///< as given, for variadic builtins
  std::vector<const Value*> bound;  ///< one a parameter; null when not given

  bool has(size_t i) const { return bound[i] != nullptr && !bound[i]->is_none(); }
  const Value& at(size_t i) const { return *bound[i]; }
  /// RuntimeError unless the argument is of the type; the default when it is not given or None.
  int64_t integer(size_t i, int64_t otherwise) const;
  bool truth(size_t i, bool otherwise) const { return bound[i] ? bound[i]->truthy() : otherwise; }
  std::string text(size_t i, std::string_view otherwise = "") const;
  /// The receiver as text.
  std::string self_text() const { return to_text(self, budget); }
  /// A string result; its bytes count.
  Value made(std::string text) const;
  Value made(std::vector<Value> items) const;
};

struct Builtin {
  std::string_view name;
  std::vector<std::string_view> parameters;  ///< {"*"}: takes what comes, in `arguments`
  size_t num_required;
  Value (*call)(const Call&);
};

const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_global(std::string_view name);
/// A method of this value, or null.
const Builtin* find_method(const Value& receiver, std::string_view name);

/// Long texts make long work: a step for every 16 bytes of a string.
void charge_length(const Value& value, Budget& budget);

/// Matches arguments and calls. RuntimeError for too many, unknown or missing ones.
Value call_builtin(const Builtin& builtin, Interpreter& interpreter, Budget& budget, const Value& self,
                   const Arguments& arguments);

/// What attribute="a.b.0" arguments ask for: value["a"]["b"][0]. An undefined step becomes `otherwise`, if
/// given.
Value get_path(Interpreter& interpreter, const Value& value, const Value& path,
               const Value* otherwise = nullptr);

// Shared by several tables.
Value percent_format(std::string_view format, const std::vector<Value>& values, Budget& budget);
/// str.replace of the receiver by arguments 0 (old), 1 (new) and 2 (count).
Value replace_in_self(const Call& call);
bool contains(const Value& container, const Value& item, Budget& budget);
/// Python's len(). RuntimeError for what has none.
int64_t length(const Value& value);

}  // namespace moge::text::jinja
