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

Figure read_figure(JsonObject& parent, const std::string& key) {
  constexpr std::array<std::string_view, 4> kStatuses = {"datasheet", "measured", "estimated", "disputed"};
  JsonObject table(require_table(parent, key), str(parent.where(), ": ", key));
  const nlohmann::json* value = table.find("value");
  const double number = value && value->is_number() ? value->get<double>() : 0.0;
  check<FileError>(std::isfinite(number) && number > 0, table.where(),
                   ": expected a positive number 'value'");
  Figure figure{number, require_text(table, "source"), require_text(table, "status")};
  check<FileError>(std::ranges::find(kStatuses, figure.status) != kStatuses.end(), table.where(),
                   ": status '", figure.status, "': expected datasheet, measured, estimated or disputed");
  table.refuse_unread();
  return figure;
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
  for (const char* key : {"name", "memory_bytes", "memory_bandwidth", "peak_flops"}) top.has(key);
  top.refuse_unread();
  Hardware hardware{
      require_text(top, "name"), read_figure(top, "memory_bytes"), read_figure(top, "memory_bandwidth"), {}};
  const nlohmann::json& peaks_json = require_table(top, "peak_flops");
  JsonObject peaks(peaks_json, str(file.string(), ": peak_flops"));
  for (const auto& [key, value] : peaks_json.items()) {
    const std::optional<DType> dtype = dtype_named(key);
    check<FileError>(dtype.has_value(), peaks.where(), ": '", key,
                     "': expected f32, bf16, f16, i8 or fp8_e4m3");
    hardware.peak_flops[dtype.value_or(DType::kF32)] = read_figure(peaks, key);
  }
  return hardware;
}

}  // namespace moge::spec
