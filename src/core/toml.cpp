#include "core/toml.h"

#include <toml++/toml.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace moge {

namespace {

nlohmann::json to_json(const toml::node& node, const std::string& source) {
  if (const toml::table* table = node.as_table()) {
    nlohmann::json object = nlohmann::json::object();
    for (const auto& [key, value] : *table) object[std::string(key.str())] = to_json(value, source);
    return object;
  }
  if (const toml::array* array = node.as_array()) {
    nlohmann::json list = nlohmann::json::array();
    for (const toml::node& value : *array) list.push_back(to_json(value, source));
    return list;
  }
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  const toml::source_position at = node.source().begin;
  throw FileError(str(source, ":", at.line, ":", at.column, ": dates and times are not used here"));
}

}  // namespace

nlohmann::json parse_toml(std::string_view text, const std::string& source) {
  try {
    return to_json(toml::parse(text, source), source);
  } catch (const toml::parse_error& e) {
    const toml::source_position at = e.source().begin;
    throw FileError(str(source, ":", at.line, ":", at.column, ": ", e.description()));
  }
}

}  // namespace moge
