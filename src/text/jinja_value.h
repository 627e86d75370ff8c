// The values of a template: Python's, as far as chat templates can tell. Immutable (the sandbox forbids
// changing lists and dicts) but for namespaces; copies share.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja_error.h"

namespace moge::text::jinja {

class Value;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Function;

struct Undefined {
  std::shared_ptr<const std::string> what;  ///< for error messages: "'tools' is undefined"; may be null
};
struct None {};

class Value {
 public:
  // Namespaces and loops belong to the interpreter: owning them here could make cycles.
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                            std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace*, Loop*,
                            std::shared_ptr<const Function>>;
  Value() = default;  ///< undefined
  static Value undefined(std::string what);
  static Value none() { return Value(Data(None{})); }
  static Value boolean(bool b) { return Value(Data(b)); }
  static Value integer(int64_t i) { return Value(Data(i)); }
  static Value real(double d) { return Value(Data(d)); }
  static Value string(std::string s) {
    return Value(Data(std::make_shared<const std::string>(std::move(s))));
  }
  /// Throws RuntimeError when nested too deeply (kMaxNesting).
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value dict(Dict dict);
  static Value function(Function function);
  explicit Value(Data data) : data_(std::move(data)) {}

  template <class T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  const std::string* as_string() const { return deref<std::string>(); }
  const List* as_list() const { return deref<List>(); }
  const Dict* as_dict() const { return deref<Dict>(); }
  const Function* as_function() const { return deref<Function>(); }
  Namespace* as_namespace() const { return get<Namespace*>() ? *get<Namespace*>() : nullptr; }
  const Loop* as_loop() const { return get<Loop*>() ? *get<Loop*>() : nullptr; }
  /// bool and int, as Python's int.
  bool as_integer(int64_t& out) const;
  /// bool, int and float.
  bool as_number(double& out) const;

  const Data& data() const { return data_; }
  const char* type_name() const;  ///< Python's: "str", "dict", ...
  bool truthy() const;

 private:
  template <class T>
  const T* deref() const {
    const auto* pointer = get<std::shared_ptr<const T>>();
    return pointer ? pointer->get() : nullptr;
  }
  Data data_;
};

/// So that comparing, printing and destroying values may recurse.
inline constexpr int kMaxNesting = 100;

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
};

/// Keeps insertion order. Keys are strings, numbers, booleans, None or tuples of these; 1, 1.0 and True are
/// one key.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int depth = 1;

  void set(Value key, Value value);
  const Value* find(const Value& key) const;  ///< null when absent
  const Value* find(std::string_view key) const;

 private:
  std::unordered_map<std::string, size_t> index_;  ///< by key_of()
};

struct Namespace {
  std::unordered_map<std::string, Value> attributes;
};

/// The `loop` variable of a for statement.
struct Loop {
  std::shared_ptr<const List> items;
  int64_t index0 = 0;
  Value changed;  ///< arguments of the last loop.changed(), a list
};

struct Macro;  // the interpreter's

struct Function {
  enum class Kind { kGlobal, kMethod, kMacro } kind;
  std::string name;
  Value receiver;  ///< of a method
  const Macro* macro = nullptr;
};

/// Python's == (1 == 1.0 == True).
bool equals(const Value& a, const Value& b, Budget& budget);
/// Python's <=> for numbers, strings and lists. RuntimeError for anything else.
int compare(const Value& a, const Value& b, Budget& budget);

/// Python's str(): what {{ value }} prints. Undefined prints as nothing.
std::string to_text(const Value& value, Budget& budget);
std::string repr(const Value& value, Budget& budget);
std::string float_text(double d);  ///< Python's repr(float)

/// The items that a for statement walks: of a list, a dict's keys, a string's characters, nothing for
/// undefined. RuntimeError for others.
std::shared_ptr<const List> iterate(const Value& value, Budget& budget);

/// Keeps the order of keys, which templates print. RuntimeError for nesting beyond kMaxNesting; integers
/// beyond int64 become floats.
Value from_json(const nlohmann::ordered_json& json, int depth = 0);

struct JsonStyle {
  int indent = -1;  ///< spaces a level; -1: one line
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::string_view item_separator = ", ";
  std::string_view key_separator = ": ";
};
/// Python's json.dumps. RuntimeError for what JSON cannot hold.
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace moge::text::jinja
