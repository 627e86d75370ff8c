#include "sim/op_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"

namespace moge::sim {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;
constexpr int64_t kMaxSize = int64_t{1} << 40;
constexpr double kMilli = 1e-3;

}  // namespace

void OpCurve::add(double rows, double seconds) {
  const auto at = std::lower_bound(points_.begin(), points_.end(), std::pair{rows, 0.0});
  if (at != points_.end() && at->first == rows)
    at->second = std::min(at->second, seconds);  // measured twice: the better one
  else
    points_.insert(at, {rows, seconds});
}

double OpCurve::seconds(double rows) const {
  const auto above = std::lower_bound(points_.begin(), points_.end(), std::pair{rows, 0.0});
  if (above == points_.begin()) return above->second;
  const auto below = above - 1;
  if (above == points_.end()) return below->second * rows / below->first;
  const double t = (rows - below->first) / (above->first - below->first);
  return below->second + t * (above->second - below->second);
}

const OpCurve* OpTable::find(const std::string& op, const std::string& dtype, int64_t n, int64_t k,
                             int64_t experts) const {
  const auto it = curves_.find(Key{op, dtype, n, k, experts});
  return it == curves_.end() ? nullptr : &it->second;
}

void OpTable::add(const std::string& op, const std::string& dtype, int64_t n, int64_t k, int64_t experts,
                  double rows, double seconds) {
  curves_[Key{op, dtype, n, k, experts}].add(rows, seconds);
}

OpTable load_op_table(const std::filesystem::path& file) {
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
    const double ms = op.require(op.number("ms"), "ms");
    check<FileError>(ms > 0, op.where(), ": ms ", ms, ": expected a positive number");
    if (name != "matmul" && name != "grouped_matmul" && name != "attention") continue;
    const nlohmann::json* shape_json = op.find("shape");
    if (!shape_json) op.throw_missing("shape");
    JsonObject shape(*shape_json, op.where() + ": shape");
    const auto size = [&](const char* key) { return shape.require(shape.integer(key, 1, kMaxSize), key); };
    const std::string dtype = shape.require(shape.text("dtype"), "dtype");
    if (name == "attention") {
      const double positions = static_cast<double>(size("batch")) * static_cast<double>(size("context"));
      table.add(name, dtype, size("heads"), size("kv_heads"), size("head_dim"), positions, ms * kMilli);
    } else {
      const int64_t experts = name == "matmul" ? 1 : size("experts");
      table.add(name, dtype, size("n"), size("k"), experts, static_cast<double>(size("m")), ms * kMilli);
    }
  }
  return table;
}

}  // namespace moge::sim
