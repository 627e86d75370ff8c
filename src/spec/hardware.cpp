#include "spec/hardware.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/toml.h"

namespace moge::spec {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 20;
constexpr int64_t kMaxDevices = int64_t{1} << 20;
constexpr int64_t kMaxTile = 4096;

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8, DType::kFP8E4M3}) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

const nlohmann::json& require_table(JsonObject& parent, const std::string& key) {
  const nlohmann::json* child = parent.find(key);
  if (!child) parent.throw_missing(key);
  return *child;
}

std::string require_text(JsonObject& table, const std::string& key) {
  std::string value = table.require(table.text(key), key);
  check<FileError>(!value.empty(), table.where(), ": expected a string '", key, "'");
  return value;
}

std::string require_status(JsonObject& table) {
  constexpr std::array<std::string_view, 7> kStatuses = {"datasheet", "measured", "estimated", "disputed",
                                                         "prior",     "fitted",   "quoted"};
  std::string status = require_text(table, "status");
  check<FileError>(std::ranges::find(kStatuses, status) != kStatuses.end(), table.where(), ": status '",
                   status, "': expected datasheet, measured, estimated, disputed, prior, fitted or quoted");
  return status;
}

Figure read_figure(JsonObject& parent, const std::string& key) {
  JsonObject table(require_table(parent, key), str(parent.where(), ": ", key));
  const nlohmann::json* value = table.find("value");
  const double number = value && value->is_number() ? value->get<double>() : 0.0;
  // Beyond any machine's bytes and rates, and times of any step stay finite.
  constexpr double kLeast = 1, kMost = 1e24;
  check<FileError>(number >= kLeast && number <= kMost, table.where(), ": expected a number 'value' from ",
                   kLeast, " to ", kMost);
  Figure figure{number, require_text(table, "source"), require_status(table)};
  table.refuse_unread();
  return figure;
}

std::map<DType, Figure> read_flops(JsonObject& parent, const std::string& key) {
  const nlohmann::json& json = require_table(parent, key);
  JsonObject table(json, str(parent.where(), ": ", key));
  std::map<DType, Figure> flops;
  for (const auto& [name, value] : json.items()) {
    const std::optional<DType> dtype = dtype_named(name);
    check<FileError>(dtype.has_value(), table.where(), ": '", name,
                     "': expected f32, bf16, f16, i8 or fp8_e4m3");
    flops[dtype.value_or(DType::kF32)] = read_figure(table, name);
  }
  return flops;
}

/// A level must hold whole units of its own and whole copies of the level inside it.
LinkLevel read_level(const nlohmann::json& value, const std::string& where, const LinkLevel* inner) {
  JsonObject table(value, where);
  LinkLevel level;
  level.name = require_text(table, "name");
  const std::string kind = require_text(table, "kind");
  check<FileError>(kind == "mesh" || kind == "switch", where, ": kind '", kind, "': expected mesh or switch");
  level.kind = kind == "mesh" ? LinkLevel::Kind::kMesh : LinkLevel::Kind::kSwitch;
  level.devices = table.integer("devices", 2, kMaxDevices).value_or(0);
  level.unit_devices = table.integer("unit_devices", 1, kMaxDevices).value_or(1);
  level.bandwidth = read_figure(table, "bandwidth");
  table.refuse_unread();
  check<FileError>(level.kind == LinkLevel::Kind::kSwitch || level.unit_devices == 1, where,
                   ": a mesh joins single devices; 'unit_devices' is of a switch");
  check<FileError>(level.kind == LinkLevel::Kind::kSwitch || level.devices > 0, where,
                   ": a mesh needs 'devices'");
  check<FileError>(level.devices % level.unit_devices == 0, where, ": ", level.devices,
                   " devices are not a multiple of unit_devices ", level.unit_devices);
  if (inner) {
    check<FileError>(inner->devices > 0, where, ": the level inside it, '", inner->name,
                     "', joins any number of devices; give it 'devices'");
    check<FileError>(
        level.devices == 0 || (level.devices > inner->devices && level.devices % inner->devices == 0), where,
        ": joins ", level.devices, " devices, expected a multiple of the ", inner->devices, " of '",
        inner->name, "'");
  }
  return level;
}

MatmulUnits read_matmul(JsonObject& parent) {
  JsonObject table(require_table(parent, "matmul"), str(parent.where(), ": matmul"));
  MatmulUnits m;
  m.units = table.require(table.integer("units", 1, kMaxDevices), "units");
  m.row_step = table.require(table.integer("row_step", 1, kMaxTile), "row_step");
  m.tile_rows = table.require(table.integer("tile_rows", 1, kMaxTile), "tile_rows");
  m.tile_cols = table.require(table.integer("tile_cols", 1, kMaxTile), "tile_cols");
  m.source = require_text(table, "source");
  m.status = require_status(table);
  table.refuse_unread();
  check<FileError>(m.tile_rows % m.row_step == 0, table.where(), ": tile_rows ", m.tile_rows,
                   " is not a multiple of row_step ", m.row_step);
  return m;
}

}  // namespace

double Hardware::peak(DType dtype) const {
  const auto it = peak_flops.find(dtype);
  if (it != peak_flops.end()) return it->second.value;
  std::string known;
  for (const auto& [candidate, figure] : peak_flops)
    known += str(known.empty() ? "" : ", ", name_of(candidate));
  throw UsageError(str(name, " has no peak_flops for ", name_of(dtype), "; it has ", known));
}

Hardware load_hardware(const std::filesystem::path& file) {
  const nlohmann::json root = parse_toml(read_text_file(file, kMaxFileBytes), file.string());
  JsonObject top(root, file.string());
  // A misspelt key is the better complaint than the missing one that it causes.
  for (const char* key : {"name", "devices_per_card", "memory_bytes", "memory_bandwidth", "peak_flops",
                          "sustained_flops", "interconnect", "matmul"})
    top.has(key);
  top.refuse_unread();
  Hardware hardware;
  hardware.name = require_text(top, "name");
  hardware.devices_per_card = top.integer("devices_per_card", 1, 64).value_or(1);
  hardware.memory_bytes = read_figure(top, "memory_bytes");
  hardware.memory_bandwidth = read_figure(top, "memory_bandwidth");
  hardware.peak_flops = read_flops(top, "peak_flops");
  if (top.has("sustained_flops")) hardware.sustained_flops = read_flops(top, "sustained_flops");
  for (const auto& [dtype, figure] : hardware.sustained_flops)
    check<FileError>(figure.value <= hardware.peak(dtype), file.string(), ": sustained_flops of ",
                     name_of(dtype), " are above its peak_flops");
  if (const nlohmann::json* levels = top.find("interconnect")) {
    check<FileError>(levels->is_array(), file.string(), ": expected [[interconnect]] tables");
    for (const nlohmann::json& level : *levels) {
      const std::string where = str(file.string(), ": interconnect ", hardware.interconnect.size() + 1);
      hardware.interconnect.push_back(
          read_level(level, where, hardware.interconnect.empty() ? nullptr : &hardware.interconnect.back()));
    }
  }
  if (top.has("matmul")) hardware.matmul = read_matmul(top);
  return hardware;
}

}  // namespace moge::spec
