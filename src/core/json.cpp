#include "core/json.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "core/nearest.h"

namespace moge {
namespace {

using nlohmann::json;

/// nlohmann's message without its "[json.exception...] " tag; bytes of the file that it quotes may be
/// anything.
std::string readable(std::string_view what) {
  constexpr size_t kMaxChars = 240;
  const size_t tag_end = what.find("] ");
  if (tag_end != std::string_view::npos) what.remove_prefix(tag_end + 2);
  std::string text(what.substr(0, kMaxChars));
  for (char& c : text) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  if (what.size() > kMaxChars) text += "...";
  return text;
}

/// Refuses what the parser accepts: deep nesting (recursive users of the tree would overflow their stack) and
/// duplicate keys (it keeps the last value).
class Guard {
 public:
  Guard(const std::string& source, int max_depth) : source_(source), max_depth_(max_depth) {}

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
        open_objects_.emplace_back();
        [[fallthrough]];
      case json::parse_event_t::array_start:
        check<FileError>(depth < max_depth_, source_, ": JSON nested deeper than ", max_depth_, " levels");
        break;
      case json::parse_event_t::key: {
        const std::string& key = parsed.get_ref<const std::string&>();
        check<FileError>(open_objects_.back().insert(key).second, source_, ": duplicate JSON key ",
                         json_excerpt(parsed));
        break;
      }
      case json::parse_event_t::object_end:
        open_objects_.pop_back();
        break;
      default:
        break;
    }
    return true;
  }

 private:
  const std::string& source_;
  int max_depth_;
  std::vector<std::unordered_set<std::string>> open_objects_;
};

}  // namespace

json parse_json(std::string_view text, const std::string& source, int max_depth) {
  try {
    Guard guard(source, max_depth);
    return json::parse(text.begin(), text.end(), std::ref(guard));
  } catch (const json::exception& e) {
    throw FileError(str(source, ": broken JSON: ", readable(e.what())));
  }
}

std::string json_excerpt(const json& value, size_t max_chars) {
  // JSON has no such numbers; values that come from TOML may be.
  if (value.is_number_float() && !std::isfinite(value.get<double>())) return str(value.get<double>());
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);  // ASCII: may be cut anywhere
  if (text.size() > max_chars) text = text.substr(0, max_chars) + "...";
  return text;
}

JsonObject::JsonObject(const json& value, std::string where) : object_(value), where_(std::move(where)) {
  check<FileError>(value.is_object(), where_, ": expected a JSON object, got ", json_excerpt(value));
}

const json* JsonObject::find(const std::string& key) {
  read_.insert(key);
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool JsonObject::has(const std::string& key) {
  return find(key) != nullptr;
}

std::optional<int64_t> JsonObject::integer(const std::string& key, int64_t min, int64_t max) {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  // An unsigned beyond int64 would wrap in get<int64_t>().
  const bool fits =
      value->is_number_integer() && !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
  if (!fits || value->get<int64_t>() < min || value->get<int64_t>() > max)
    throw_wrong(key, min == INT64_MIN && max == INT64_MAX ? std::string("an integer")
                                                          : str("an integer from ", min, " to ", max));
  return value->get<int64_t>();
}

std::optional<double> JsonObject::number(const std::string& key, double min, double max) {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || value->get<double>() < min || value->get<double>() > max)
    throw_wrong(key, std::isinf(min) && std::isinf(max) ? std::string("a number")
                                                        : str("a number from ", min, " to ", max));
  return value->get<double>();
}

std::optional<bool> JsonObject::boolean(const std::string& key) {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) throw_wrong(key, "true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonObject::text(const std::string& key) {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) throw_wrong(key, "a string");
  return value->get<std::string>();
}

void JsonObject::throw_missing(const std::string& key) const {
  check<FileError>(!object_.contains(key), where_, ": key '", key, "' is null, expected a value");
  std::vector<std::string> keys;
  for (const auto& [name, value] : object_.items()) keys.push_back(name);
  throw FileError(str(where_, ": key '", key, "' is missing", did_you_mean(key, keys)));
}

void JsonObject::throw_wrong(const std::string& key, const std::string& expected) const {
  throw FileError(
      str(where_, ": key '", key, "': expected ", expected, ", got ", json_excerpt(object_.at(key))));
}

std::vector<std::string> JsonObject::unread() const {
  std::vector<std::string> keys;
  for (const auto& [name, value] : object_.items()) {
    if (!value.is_null() && !read_.contains(name)) keys.push_back(name);
  }
  return keys;
}

void JsonObject::refuse_unread() const {
  const std::vector<std::string> known(read_.begin(), read_.end());
  for (const std::string& key : unread())
    throw FileError(str(where_, ": unknown key '", key, "'", did_you_mean(key, known)));
}

}  // namespace moge
