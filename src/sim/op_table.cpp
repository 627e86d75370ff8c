#include "sim/op_table.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"

namespace moge::sim {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;
constexpr int64_t kMaxSize = int64_t{1} << 40;
constexpr double kMilli = 1e-3;
constexpr double kMaxMs = 1e9;

/// Which members of a shape tell operators apart, and along which their time is interpolated.
struct Schema {
  const char* op;
  std::vector<const char*> sizes;
  const char* rows;
  const char* length = nullptr;
};
const std::vector<Schema>& schemas() {
  static const std::vector<Schema> all = {
      {"matmul", {"n", "k"}, "m"},
      {"grouped_matmul", {"n", "k", "experts"}, "m"},
      {"routed_matmul", {"n", "k", "experts", "topk", "groups"}, "tokens"},
      {"matmul_beside_routed", {"n", "k", "experts", "topk", "groups"}, "tokens"},
      {"attention", {"heads", "kv_heads", "head_dim"}, "batch", "context"},
      {"prefill_attention", {"heads", "kv_heads", "head_dim"}, "sequences", "length"},
      {"residual_norm", {"width", "slots"}, "rows"},
      {"quantize_rows", {"width"}, "rows"},
      {"rope_kv_write", {"heads", "kv_heads", "head_dim"}, "rows"},
      {"moe_route", {"width", "experts", "topk", "groups", "shared"}, "tokens"},
      {"token_layer",
       {"width", "q_width", "qkv", "expert_width", "experts", "topk", "groups", "shared"},
       "tokens"},
      {"sampling", {"vocab"}, "rows"},
      {"step_inputs", {"width", "head_dim"}, "rows"},
      {"prompt_inputs", {"width", "head_dim"}, "rows"}};
  return all;
}

}  // namespace

void OpCurve::add(double rows, double seconds) {
  const auto at = std::ranges::lower_bound(points_, rows, {}, &Point::rows);
  if (at != points_.end() && at->rows == rows) {
    if (seconds >= at->seconds) return;  // measured twice: the better one
    at->seconds = seconds;
    at->log_seconds = std::log(seconds);
  } else {
    points_.insert(at, {rows, seconds, std::log(rows), std::log(seconds)});
  }
}

double OpCurve::seconds(double rows) const {
  const auto above = std::ranges::lower_bound(points_, rows, {}, &Point::rows);
  if (above == points_.begin()) return above->seconds;
  const auto below = above - 1;
  if (above == points_.end()) return below->seconds * rows / below->rows;
  if (above->rows == rows) return above->seconds;
  const double t = (std::log(rows) - below->log_rows) / (above->log_rows - below->log_rows);
  return std::exp(below->log_seconds + t * (above->log_seconds - below->log_seconds));
}

bool OpCurve::has(double rows) const {
  return std::ranges::find(points_, rows, &Point::rows) != points_.end();
}

double OpSurface::seconds(double rows, double length) const {
  const auto above = curves_.lower_bound(length);
  if (above != curves_.end() && (above == curves_.begin() || above->first == length))
    return above->second.seconds(rows);
  const auto below = std::prev(above);
  const double low = below->second.seconds(rows);
  if (above == curves_.end()) return low * length / below->first;
  const double high = above->second.seconds(rows);
  return low * std::pow(high / low, std::log(length / below->first) / std::log(above->first / below->first));
}

bool OpSurface::has(double rows, double length) const {
  const auto it = curves_.find(length);
  return it != curves_.end() && it->second.has(rows);
}

const OpSurface* OpTable::find(const std::string& op, const std::string& dtype,
                               const std::vector<int64_t>& sizes) const {
  const auto it = surfaces_.find(Key{op, dtype, sizes});
  return it == surfaces_.end() ? nullptr : &it->second;
}

OpTable load_op_table(const std::filesystem::path& file, OpTiming timing) {
  const nlohmann::json root = parse_json(read_text_file(file, kMaxFileBytes), file.string());
  JsonObject top(root, file.string());
  OpTable table;
  table.device = top.require(top.text("device"), "device");
  const nlohmann::json* ops = top.find("ops");
  check<FileError>(ops && ops->is_array(), file.string(), ": expected an array 'ops'");
  size_t index = 0;
  for (const nlohmann::json& value : *ops) {
    JsonObject op(value, str(file.string(), ": ops[", index++, "]"));
    const std::string name = op.require(op.text("op"), "op");
    double ms = op.require(op.number("ms"), "ms");
    if (timing == OpTiming::kBetweenEvents) ms = op.number("span_ms").value_or(ms);
    check<FileError>(ms > 0 && ms <= kMaxMs, op.where(), ": ms ", ms, ": expected a number above 0, at most ",
                     kMaxMs);
    const auto schema = std::ranges::find(schemas(), name, &Schema::op);
    if (schema == schemas().end()) continue;
    const nlohmann::json* shape_json = op.find("shape");
    if (!shape_json) op.throw_missing("shape");
    JsonObject shape(*shape_json, op.where() + ": shape");
    const auto size = [&](const char* key) { return shape.require(shape.integer(key, 1, kMaxSize), key); };
    const std::string dtype = shape.require(shape.text("dtype"), "dtype");
    std::vector<int64_t> sizes;
    for (const char* key : schema->sizes)  // a model may have no shared expert
      sizes.push_back(std::string_view(key) == "shared" ? shape.require(shape.integer(key, 0, kMaxSize), key)
                                                        : size(key));
    table.add(name, dtype, sizes, static_cast<double>(size(schema->rows)), ms * kMilli,
              schema->length ? static_cast<double>(size(schema->length)) : 0);
  }
  return table;
}

}  // namespace moge::sim
