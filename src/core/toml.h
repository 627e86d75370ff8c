// TOML files read as JSON values, so that one strict reader (core/json.h, JsonObject) serves both formats.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace moge {

/// Tables, arrays, strings, integers, floats and booleans; dates are refused. Throws FileError with source,
/// line and column.
nlohmann::json parse_toml(std::string_view text, const std::string& source);

}  // namespace moge
