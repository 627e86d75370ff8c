#include "sim/calibration.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/toml.h"

namespace moge::sim {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 20;

std::string require_text(JsonObject& table, const std::string& key) {
  std::string text = table.require(table.text(key), key);
  check<FileError>(!text.empty(), table.where(), ": expected a string '", key, "'");
  return text;
}

Constant read_constant(const nlohmann::json& value, const std::string& where, const ConstantField& field) {
  constexpr std::array<const char*, 5> kStatuses = {"datasheet", "prior", "fitted", "measured", "quoted"};
  JsonObject table(value, where);
  const auto number = [&](const char* key) {
    const double x = table.require(table.number(key), key);
    check<FileError>(x >= field.min && x <= field.max, where, ": ", key, " ", x, ": expected from ",
                     field.min, " to ", field.max);
    return x;
  };
  Constant c;
  c.value = number("value");
  c.status = require_text(table, "status");
  c.source = require_text(table, "source");
  check<FileError>(std::ranges::find(kStatuses, c.status) != kStatuses.end(), where, ": status '", c.status,
                   "': expected datasheet, prior, fitted, measured or quoted");
  if (c.fitted()) {
    c.prior = number("prior");
    c.spread = table.require(table.number("spread"), "spread");
    check<FileError>(c.prior > 0 && c.spread > 0 && c.spread <= 10, where,
                     ": expected a positive prior and a spread from 0 to 10");
  }
  table.refuse_unread();
  return c;
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump();  // a JSON string is a TOML basic string
}

}  // namespace

const std::array<ConstantField, kNumConstants>& constant_fields() {
  using C = Calibration;
  static constexpr double kLeastShare = 1e-3;
  static constexpr std::array<ConstantField, kNumConstants> fields{{
      {"matmul_efficiency", &C::matmul_efficiency, kLeastShare, 1},
      {"memory_efficiency", &C::memory_efficiency, kLeastShare, 1},
      {"kv_efficiency", &C::kv_efficiency, kLeastShare, 1},
      {"attention_efficiency", &C::attention_efficiency, kLeastShare, 1},
      {"score_ps", &C::score_ps, 0, 1e6},
      {"link_efficiency", &C::link_efficiency, kLeastShare, 1},
      {"op_us", &C::op_us, 0, 1e5},
      {"collective_us", &C::collective_us, 0, 1e6},
      {"moe_layer_us", &C::moe_layer_us, 0, 1e6},
      {"step_us", &C::step_us, 0, 1e6},
      {"overlap", &C::overlap, 0, 1},
      {"reserved_gib", &C::reserved_gib, 0, 1e4},
  }};
  return fields;
}

Calibration load_calibration(const std::filesystem::path& file) {
  const nlohmann::json root = parse_toml(read_text_file(file, kMaxFileBytes), file.string());
  JsonObject top(root, file.string());
  Calibration calibration;
  calibration.hardware = require_text(top, "hardware");
  if (const nlohmann::json* rows = top.find("rows")) {
    check<FileError>(rows->is_array(), file.string(), ": expected an array 'rows'");
    for (const nlohmann::json& row : *rows) {
      check<FileError>(row.is_string(), file.string(), ": rows: expected the ids of measurements");
      calibration.rows.push_back(row.get<std::string>());
    }
  }
  for (const ConstantField& field : constant_fields()) {
    const nlohmann::json* value = top.find(field.name);
    if (!value) top.throw_missing(field.name);
    calibration.*field.member = read_constant(*value, str(file.string(), ": ", field.name), field);
  }
  top.refuse_unread();
  return calibration;
}

std::string to_toml(const Calibration& calibration) {
  std::string text = str("hardware = ", quoted(calibration.hardware),
                         "\nrows = ", nlohmann::json(calibration.rows).dump(), "\n");
  const auto number = [](double x) { return nlohmann::json(x).dump(); };
  for (const ConstantField& field : constant_fields()) {
    const Constant& c = calibration.*field.member;
    text += str("\n[", field.name, "]\nvalue = ", number(c.value), "\nstatus = ", quoted(c.status), "\n");
    if (c.fitted()) text += str("prior = ", number(c.prior), "\nspread = ", number(c.spread), "\n");
    text += str("source = ", quoted(c.source), "\n");
  }
  return text;
}

}  // namespace moge::sim
