#include "sim/rows.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/toml.h"
#include "sim/plan_file.h"
#include "sim/speculation.h"

namespace moge::sim {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 20;
constexpr int64_t kMaxCount = 1'000'000'000;
constexpr double kMilli = 1e-3;

Observation read_row(JsonObject& table, const ModelLoader& load_model) {
  Observation row;
  row.id = table.require(table.text("id"), "id");
  row.model = load_model(table.require(table.text("model"), "model"));
  row.precision = {weight_format(table.text("weights").value_or("w8a8")),
                   kv_format(table.text("kv").value_or("fp16"))};
  row.devices = table.require(table.integer("cards", 1, 1 << 20), "cards");
  const auto batch = static_cast<double>(table.require(table.integer("batch", 1, kMaxCount), "batch"));
  const std::string stage = table.require(table.text("stage"), "stage");
  check<FileError>(stage == "decode" || stage == "prefill", table.where(), ": stage '", stage,
                   "': expected decode or prefill");
  const char* length_key = stage == "decode" ? "context" : "input";
  const auto length = static_cast<double>(table.require(table.integer(length_key, 1, kMaxCount), length_key));
  const std::optional<std::string> mtp = table.text("mtp");
  const double drafts = mtp ? static_cast<double>(parse_speculation(*mtp).draft_tokens) : 0;
  row.load = stage == "decode" ? decode_load(batch, length, drafts) : prefill_load(batch, length);
  row.cached_requests = batch;
  row.cached_positions = length;
  if (const std::optional<std::string> plan = table.text("plan")) row.plan = load_plan(*plan);
  row.measured_s = table.require(table.number("latency_ms"), "latency_ms") * kMilli;
  check<FileError>(row.measured_s > 0, table.where(), ": latency_ms: expected a positive number");
  table.text("source");
  table.refuse_unread();
  return row;
}

}  // namespace

std::vector<MachineRows> load_rows(const std::filesystem::path& file, const ModelLoader& load_model) {
  const std::string text = read_text_file(file, kMaxFileBytes);
  const nlohmann::json root =
      file.extension() == ".json" ? parse_json(text, file.string()) : parse_toml(text, file.string());
  JsonObject top(root, file.string());
  const nlohmann::json* list = top.find("row");
  check<FileError>(list && list->is_array() && !list->empty(), file.string(), ": expected [[row]] tables");
  top.refuse_unread();
  std::vector<MachineRows> machines;
  size_t index = 0;
  for (const nlohmann::json& value : *list) {
    JsonObject table(value, str(file.string(), ": row ", ++index));
    const std::string hardware = table.require(table.text("hardware"), "hardware");
    Observation row = read_row(table, load_model);
    auto machine = std::ranges::find(machines, hardware, &MachineRows::hardware);
    if (machine == machines.end()) machine = machines.insert(machines.end(), {hardware, {}});
    check<FileError>(std::ranges::find(machine->rows, row.id, &Observation::id) == machine->rows.end(),
                     file.string(), ": two rows have the id '", row.id, "'");
    machine->rows.push_back(std::move(row));
  }
  return machines;
}

}  // namespace moge::sim
