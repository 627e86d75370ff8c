#include "spec/hardware.h"

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
#include "core/nearest.h"

namespace moge::spec {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 20;

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8, DType::kFP8E4M3}) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

/// A table of the file; `where` begins its error messages.
class Table {
 public:
  Table(const toml::table& table, std::string where) : table_(table), where_(std::move(where)) {}

  void allow_only(const std::vector<std::string>& keys) const {
    for (const auto& [key, value] : table_) {
      const bool known = std::ranges::find(keys, key.str()) != keys.end();
      check<FileError>(known, where_, ": unknown key '", key.str(), "'",
                       known ? "" : did_you_mean(key.str(), keys));
    }
  }
  Table table(const char* key) const {
    const toml::table* child = table_[key].as_table();
    check<FileError>(child != nullptr, where_, ": table '", key, "' is missing");
    return {*child, str(where_, ": ", key)};
  }
  std::string text(const char* key) const {
    const std::optional<std::string> value = table_[key].value<std::string>();
    check<FileError>(value && !value->empty(), where_, ": expected a string '", key, "'");
    return *value;
  }
  double positive(const char* key) const {
    const double value = table_[key].value<double>().value_or(0.0);
    check<FileError>(std::isfinite(value) && value > 0, where_, ": expected a positive number '", key, "'");
    return value;
  }
  std::vector<std::string> keys() const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : table_) keys.emplace_back(key.str());
    return keys;
  }
  const std::string& where() const { return where_; }

 private:
  const toml::table& table_;
  std::string where_;
};

Figure read_figure(const Table& table) {
  constexpr std::array<std::string_view, 4> kStatuses = {"datasheet", "measured", "estimated", "disputed"};
  table.allow_only({"value", "source", "status"});
  Figure figure{table.positive("value"), table.text("source"), table.text("status")};
  check<FileError>(std::ranges::find(kStatuses, figure.status) != kStatuses.end(), table.where(),
                   ": status '", figure.status, "': expected datasheet, measured, estimated or disputed");
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
  toml::table root;
  try {
    root = toml::parse(read_text_file(file, kMaxFileBytes), file.string());
  } catch (const toml::parse_error& e) {
    throw FileError(
        str(file.string(), ":", e.source().begin.line, ":", e.source().begin.column, ": ", e.description()));
  }
  const Table top(root, file.string());
  top.allow_only({"name", "memory_bytes", "memory_bandwidth", "peak_flops"});
  Hardware hardware{top.text("name"),
                    read_figure(top.table("memory_bytes")),
                    read_figure(top.table("memory_bandwidth")),
                    {}};
  const Table peaks = top.table("peak_flops");
  for (const std::string& key : peaks.keys()) {
    const std::optional<DType> dtype = dtype_named(key);
    check<FileError>(dtype.has_value(), peaks.where(), ": '", key,
                     "': expected f32, bf16, f16, i8 or fp8_e4m3");
    hardware.peak_flops[dtype.value_or(DType::kF32)] = read_figure(peaks.table(key.c_str()));
  }
  return hardware;
}

}  // namespace moge::spec
