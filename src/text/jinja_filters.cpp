// {{ value | filter }}: those that work on one value. Filters of sequences are in jinja_sequence_filters.cpp.
#include <cmath>
#include <cstdlib>

#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_sequence_filters.h"
#include "text/jinja_strings.h"

namespace moge::text::jinja {

namespace {

using Args = const Call&;

Value default_value(Args call) {
  const bool replaced = call.self.is_undefined() || (call.truth(1, false) && !call.self.truthy());
  if (!replaced) return call.self;
  return call.bound[0] ? call.at(0) : Value::string("");
}

Value to_json_filter(Args call) {
  JsonStyle style;
  style.ensure_ascii = call.truth(0, false);
  if (call.has(1)) {
    const int64_t indent = call.integer(1, 0);
    if (indent < 0 || indent > 32) fail("tojson: expected an indent of 0..32, got ", indent);
    style.indent = static_cast<int>(indent);
    style.item_separator = ",";
  }
  if (call.has(2)) {
    const List* pair = call.at(2).as_list();
    if (!pair || pair->items.size() != 2 || !pair->items[0].as_string() || !pair->items[1].as_string())
      fail("tojson: separators must be two strings");
    style.item_separator = *pair->items[0].as_string();
    style.key_separator = *pair->items[1].as_string();
  }
  style.sort_keys = call.truth(3, false);
  return Value::string(to_json(call.self, style, call.budget));
}

Value trimmed(Args call) {
  const std::string text = call.self_text();
  if (!call.has(0)) return call.made(std::string(strip(text, Side::kBoth)));
  const std::string set = call.text(0);
  if (set.size() > 256) fail("trim of more than 256 bytes of characters");
  return call.made(std::string(strip(text, Side::kBoth, set)));
}

Value indented(Args call) {
  const bool by_text = call.has(0) && call.at(0).as_string();
  const int64_t width = by_text ? 0 : call.integer(0, 4);
  if (width < 0 || width > 1000) fail("indent: expected a width of 0..1000, got ", width);
  const std::string indent = by_text ? *call.at(0).as_string() : std::string(static_cast<size_t>(width), ' ');
  std::string text = call.self_text();
  text += '\n';
  const bool blank_too = call.truth(2, false);
  std::string out;
  if (call.truth(1, false)) out = indent;
  call.budget.bytes(count(text, "\n") * static_cast<int64_t>(sizeof(std::string_view)));
  bool first = true;
  for (const std::string_view line : split_lines(text)) {
    call.budget.bytes(static_cast<int64_t>(line.size() + indent.size()));
    if (!std::exchange(first, false)) {
      out += '\n';
      if (blank_too || !line.empty()) out += indent;
    }
    out += line;
  }
  return Value::string(std::move(out));
}

/// Python's float(text): surrounding space is fine, anything else is not a number.
bool parse_real(std::string_view text, double& value) {
  const std::string trimmed(strip(text, Side::kBoth));
  // strtod also takes hexadecimal, which Python does not.
  if (trimmed.empty() || trimmed.find_first_of("xX") != std::string::npos) return false;
  char* end = nullptr;
  value = std::strtod(trimmed.c_str(), &end);
  return end == trimmed.c_str() + trimmed.size();
}

Value to_integer(Args call) {
  const Value otherwise = call.bound[0] ? call.at(0) : Value::integer(0);
  int64_t i = 0;
  if (call.self.as_integer(i)) return Value::integer(i);
  double d = 0;
  if (const std::string* text = call.self.as_string()) {
    const std::string trimmed(strip(*text, Side::kBoth));
    const int64_t base = call.integer(1, 10);
    if (base != 0 && (base < 2 || base > 36)) fail("int: expected a base of 0 or 2..36, got ", base);
    char* end = nullptr;
    errno = 0;
    const long long parsed = std::strtoll(trimmed.c_str(), &end, static_cast<int>(base));
    if (!trimmed.empty() && end == trimmed.c_str() + trimmed.size() && errno == 0)
      return Value::integer(parsed);
    if (!parse_real(*text, d)) return otherwise;
  } else if (!call.self.as_number(d)) {
    return otherwise;
  }
  return std::isfinite(d) && std::abs(d) < 0x1p63 ? Value::integer(static_cast<int64_t>(d)) : otherwise;
}

Value to_real(Args call) {
  double d = 0;
  if (call.self.as_number(d)) return Value::real(d);
  if (call.self.as_string() && parse_real(*call.self.as_string(), d)) return Value::real(d);
  return call.bound[0] ? call.at(0) : Value::real(0.0);
}

Value rounded(Args call) {
  double d = 0;
  if (!call.self.as_number(d)) fail("round: expected a number, got '", call.self.type_name(), "'");
  const int64_t precision = call.integer(0, 0);
  if (std::abs(precision) > 15) fail("round: expected a precision of -15..15, got ", precision);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const std::string method = call.text(1, "common");
  if (method == "ceil") return Value::real(std::ceil(d * scale) / scale);
  if (method == "floor") return Value::real(std::floor(d * scale) / scale);
  if (method != "common") fail("round: method must be common, ceil or floor, got '", method, "'");
  if (call.self.get<double>() == nullptr)
    return Value::integer(static_cast<int64_t>(std::nearbyint(d * scale) / scale));
  if (precision < 0) return Value::real(std::nearbyint(d * scale) / scale);
  // Through the decimal digits, as Python rounds: 2.675 is below its two-digit half.
  char digits[400];
  std::snprintf(digits, sizeof digits, "%.*f", static_cast<int>(precision), d);
  return Value::real(std::strtod(digits, nullptr));
}

Value absolute(Args call) {
  int64_t i = 0;
  double d = 0;
  if (call.self.as_integer(i)) {
    if (i == INT64_MIN) fail("integer overflow");
    return Value::integer(std::abs(i));
  }
  if (call.self.as_number(d)) return Value::real(std::abs(d));
  fail("bad operand type for abs(): '", call.self.type_name(), "'");
}

Value escaped(Args call) {
  std::string out;
  for (const char c : call.self_text()) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return call.made(std::move(out));
}

const std::vector<Builtin>& filters() {
  static const std::vector<Builtin> kFilters = {
      {"default", {"default_value", "boolean"}, 0, default_value},
      {"d", {"default_value", "boolean"}, 0, default_value},
      {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0, to_json_filter},
      {"trim", {"chars"}, 0, trimmed},
      {"string", {}, 0, [](Args c) { return c.made(c.self_text()); }},
      {"safe", {}, 0, [](Args c) { return c.made(c.self_text()); }},
      {"upper", {}, 0, [](Args c) { return c.made(upper(c.self_text())); }},
      {"lower", {}, 0, [](Args c) { return c.made(lower(c.self_text())); }},
      {"title", {}, 0, [](Args c) { return c.made(title_filter(c.self_text())); }},
      {"capitalize", {}, 0, [](Args c) { return c.made(capitalize(c.self_text())); }},
      {"replace", {"old", "new", "count"}, 2, replace_in_self},
      {"indent", {"width", "first", "blank"}, 0, indented},
      {"wordcount",
       {},
       0,
       [](Args c) {
         return Value::integer(static_cast<int64_t>(split(c.self_text(), std::nullopt, -1).size()));
       }},
      {"format",
       {"*"},
       0,
       [](Args c) { return percent_format(c.self_text(), c.arguments.positional, c.budget); }},
      {"escape", {}, 0, escaped},
      {"e", {}, 0, escaped},
      {"int", {"default", "base"}, 0, to_integer},
      {"float", {"default"}, 0, to_real},
      {"round", {"precision", "method"}, 0, rounded},
      {"abs", {}, 0, absolute},
      {"attr", {"name"}, 1, [](Args c) { return c.interpreter.get_attribute(c.self, c.text(0)); }},
  };
  return kFilters;
}

}  // namespace

const Builtin* find_filter(std::string_view name) {
  for (const auto* table : {&filters(), &sequence_filters()})
    for (const Builtin& filter : *table)
      if (filter.name == name) return &filter;
  return nullptr;
}

}  // namespace moge::text::jinja
