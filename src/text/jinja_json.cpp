// JSON in and out of templates.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/jinja_value.h"
#include "text/utf8.h"

namespace moge::text::jinja {

namespace {

using Json = nlohmann::ordered_json;

void append_escaped(char32_t unit, std::string& out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kDigits[(unit >> shift) & 15];
}

void append_string(std::string_view text, bool ensure_ascii, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    const std::string_view bytes = text.substr(0, static_cast<size_t>(step.length));
    text.remove_prefix(bytes.size());
    const char32_t c = step.valid ? step.code_point : 0xFFFD;
    static constexpr std::string_view kNamed = "\"\\\b\f\n\r\t";
    if (const size_t at = c < 0x80 ? kNamed.find(static_cast<char>(c)) : std::string_view::npos;
        at != std::string_view::npos) {
      out += '\\';
      out += "\"\\bfnrt"[at];
    } else if (c >= 0x20 && (c < 0x7F || !ensure_ascii)) {
      out += bytes;
    } else if (c < 0x10000) {
      append_escaped(c, out);
    } else {
      append_escaped(0xD800 + ((c - 0x10000) >> 10), out);
      append_escaped(0xDC00 + ((c - 0x10000) & 0x3FF), out);
    }
  }
  out += '"';
}

class Writer {
 public:
  Writer(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  void write(const Value& value, int level) {
    budget_.step();
    const size_t before = out.size();
    if (value.is_none()) {
      out += "null";
    } else if (const bool* b = value.get<bool>()) {
      out += *b ? "true" : "false";
    } else if (const int64_t* i = value.get<int64_t>()) {
      out += std::to_string(*i);
    } else if (const double* d = value.get<double>()) {
      out += number(*d);
    } else if (const std::string* s = value.as_string()) {
      append_string(*s, style_.ensure_ascii, out);
    } else if (const List* list = value.as_list()) {
      container('[', ']', list->items.size(), level, [&](size_t k) { write(list->items[k], level + 1); });
      return;  // what is inside was charged
    } else if (const Dict* dict = value.as_dict()) {
      write_dict(*dict, level);
      return;
    } else {
      fail("Object of type ", value.type_name(), " is not JSON serializable");
    }
    budget_.bytes(static_cast<int64_t>(out.size() - before));
  }

  std::string out;

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return float_text(d);
  }

  void write_dict(const Dict& dict, int level) {
    std::vector<std::pair<Value, Value>> items = dict.items;
    if (style_.sort_keys)
      std::stable_sort(items.begin(), items.end(),
                       [&](const auto& a, const auto& b) { return compare(a.first, b.first, budget_) < 0; });
    container('{', '}', items.size(), level, [&](size_t k) {
      const Value& key = items[k].first;
      if (const std::string* s = key.as_string()) {
        budget_.bytes(static_cast<int64_t>(s->size()));
        append_string(*s, style_.ensure_ascii, out);
      } else {
        if (key.as_list()) fail("keys must be str, int, float, bool or None, not tuple");
        out += '"';
        write(key, level);
        out += '"';
      }
      out += style_.key_separator;
      write(items[k].second, level + 1);
    });
  }

  template <class Item>
  void container(char open, char close, size_t size, int level, const Item& item) {
    out += open;
    for (size_t k = 0; k < size; ++k) {
      budget_.bytes(static_cast<int64_t>(style_.item_separator.size() + style_.key_separator.size()));
      if (k > 0) out += style_.item_separator;
      new_line(level + 1);
      item(k);
    }
    if (size > 0) new_line(level);
    out += close;
  }

  void new_line(int level) {
    if (style_.indent < 0) return;
    const int64_t spaces = int64_t{style_.indent} * level;
    budget_.bytes(spaces + 1);
    out += '\n';
    out.append(static_cast<size_t>(spaces), ' ');
  }

  const JsonStyle& style_;
  Budget& budget_;
};

}  // namespace

Value from_json(const Json& json, int depth) {
  if (depth > kMaxNesting - 2) fail("JSON nested more than ", kMaxNesting - 2, " deep");
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) return Value::real(json.get<double>());
      [[fallthrough]];
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string:
      return Value::string(json.get_ref<const std::string&>());
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(from_json(item, depth + 1));
      return Value::list(std::move(items));
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.set(Value::string(key), from_json(item, depth + 1));
      return Value::dict(std::move(dict));
    }
    default:
      return Value::none();
  }
}

std::string to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  Writer writer(style, budget);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace moge::text::jinja
