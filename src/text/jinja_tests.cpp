// {{ value is test }}
#include "text/jinja_builtins.h"
#include "text/jinja_strings.h"

namespace moge::text::jinja {

namespace {

using Args = const Call&;

Value truth(bool value) {
  return Value::boolean(value);
}

bool is_integer(const Value& value) {
  return value.get<int64_t>() != nullptr;
}
bool is_iterable(const Value& value) {
  return value.as_string() || value.as_list() || value.as_dict() || value.is_undefined();
}

int64_t remainder(Args call, int64_t divisor) {
  int64_t value = 0;
  if (!call.self.as_integer(value)) fail("expected an integer, got '", call.self.type_name(), "'");
  if (divisor == 0) fail("division by zero");
  return divisor == -1 ? 0 : value % divisor;
}

bool same_as(const Value& a, const Value& b) {
  return a.data().index() == b.data().index() && a.data().index() < 5 && !(a.get<double>()) &&
         a.truthy() == b.truthy() && (!a.get<int64_t>() || *a.get<int64_t>() == *b.get<int64_t>());
}

const std::vector<Builtin>& tests() {
  static const Builtin kEq{
      "eq", {"other"}, 1, [](Args c) { return truth(equals(c.self, c.at(0), c.budget)); }};
  static const Builtin kNe{
      "ne", {"other"}, 1, [](Args c) { return truth(!equals(c.self, c.at(0), c.budget)); }};
  static const Builtin kLt{
      "lt", {"other"}, 1, [](Args c) { return truth(compare(c.self, c.at(0), c.budget) < 0); }};
  static const Builtin kLe{
      "le", {"other"}, 1, [](Args c) { return truth(compare(c.self, c.at(0), c.budget) <= 0); }};
  static const Builtin kGt{
      "gt", {"other"}, 1, [](Args c) { return truth(compare(c.self, c.at(0), c.budget) > 0); }};
  static const Builtin kGe{
      "ge", {"other"}, 1, [](Args c) { return truth(compare(c.self, c.at(0), c.budget) >= 0); }};
  const auto named = [](std::string_view name, Builtin builtin) {
    builtin.name = name;
    return builtin;
  };
  static const std::vector<Builtin> kTests = {
      kEq,
      kNe,
      kLt,
      kLe,
      kGt,
      kGe,
      named("equalto", kEq),
      named("lessthan", kLt),
      named("greaterthan", kGt),
      named("==", kEq),  // for select('==', 1)
      named("!=", kNe),
      named("<", kLt),
      named("<=", kLe),
      named(">", kGt),
      named(">=", kGe),
      {"defined", {}, 0, [](Args c) { return truth(!c.self.is_undefined()); }},
      {"undefined", {}, 0, [](Args c) { return truth(c.self.is_undefined()); }},
      {"none", {}, 0, [](Args c) { return truth(c.self.is_none()); }},
      {"boolean", {}, 0, [](Args c) { return truth(c.self.get<bool>() != nullptr); }},
      {"true", {}, 0, [](Args c) { return truth(c.self.get<bool>() && *c.self.get<bool>()); }},
      {"false", {}, 0, [](Args c) { return truth(c.self.get<bool>() && !*c.self.get<bool>()); }},
      {"integer", {}, 0, [](Args c) { return truth(is_integer(c.self)); }},
      {"float", {}, 0, [](Args c) { return truth(c.self.get<double>() != nullptr); }},
      {"number",
       {},
       0,
       [](Args c) {
         double unused = 0;
         return truth(c.self.as_number(unused));
       }},
      {"string", {}, 0, [](Args c) { return truth(c.self.as_string() != nullptr); }},
      {"mapping", {}, 0, [](Args c) { return truth(c.self.as_dict() != nullptr); }},
      {"iterable", {}, 0, [](Args c) { return truth(is_iterable(c.self)); }},
      {"sequence", {}, 0, [](Args c) { return truth(is_iterable(c.self)); }},
      {"callable", {}, 0, [](Args c) { return truth(c.self.as_function() != nullptr); }},
      {"sameas", {"other"}, 1, [](Args c) { return truth(same_as(c.self, c.at(0))); }},
      {"in", {"seq"}, 1, [](Args c) { return truth(contains(c.at(0), c.self, c.budget)); }},
      {"even", {}, 0, [](Args c) { return truth(remainder(c, 2) == 0); }},
      {"odd", {}, 0, [](Args c) { return truth(remainder(c, 2) != 0); }},
      {"divisibleby", {"num"}, 1, [](Args c) { return truth(remainder(c, c.integer(0, 0)) == 0); }},
      {"lower", {}, 0, [](Args c) { return truth(has_case(c.self_text(), false)); }},
      {"upper", {}, 0, [](Args c) { return truth(has_case(c.self_text(), true)); }},
      {"filter", {}, 0, [](Args c) { return truth(find_filter(c.self_text()) != nullptr); }},
      {"test", {}, 0, [](Args c) { return truth(find_test(c.self_text()) != nullptr); }},
  };
  return kTests;
}

}  // namespace

const Builtin* find_test(std::string_view name) {
  for (const Builtin& test : tests())
    if (test.name == name) return &test;
  return nullptr;
}

}  // namespace moge::text::jinja
