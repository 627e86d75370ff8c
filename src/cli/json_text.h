// Results as JSON.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace moge::cli {

/// One line, or lines of `indent`. Bytes that are not UTF-8 (arguments and the names of files need not be)
/// become U+FFFD.
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);
/// The same on standard output, with a newline.
void print_json(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace moge::cli
