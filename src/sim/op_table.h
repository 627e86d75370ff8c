// Measured times of single operators on one device (`moge bench ops --json`), used in place of the formula
// where a model's shape was measured. docs/sim.md has the file's schema.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace moge::sim {

/// One operator's time over rows: straight lines between measurements, proportional to rows behind the last,
/// constant before the first. In seconds, the fixed part included.
class OpCurve {
 public:
  void add(double rows, double seconds);
  double seconds(double rows) const;

 private:
  std::vector<std::pair<double, double>> points_;  // by rows
};

class OpTable {
 public:
  std::string device;

  /// Null where nothing was measured. `op`: "matmul" over its rows, "grouped_matmul" over rows of one expert,
  /// or "attention" of one query row a request over cached positions of all requests, with n = query heads,
  /// k = KV heads and experts = the head's size.
  const OpCurve* find(const std::string& op, const std::string& dtype, int64_t n, int64_t k,
                      int64_t experts = 1) const;
  void add(const std::string& op, const std::string& dtype, int64_t n, int64_t k, int64_t experts,
           double rows, double seconds);
  size_t size() const { return curves_.size(); }

 private:
  using Key = std::tuple<std::string, std::string, int64_t, int64_t, int64_t>;
  std::map<Key, OpCurve> curves_;
};

/// Throws FileError: broken JSON, sizes or times that are not positive. Operators that the step model has no
/// use for are skipped.
OpTable load_op_table(const std::filesystem::path& file);

}  // namespace moge::sim
