#include "cli/json_text.h"

#include <iostream>
#include <nlohmann/json.hpp>

namespace moge::cli {

std::string json_text(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void print_json(const nlohmann::ordered_json& value, int indent) {
  std::cout << json_text(value, indent) << std::endl;
}

}  // namespace moge::cli
