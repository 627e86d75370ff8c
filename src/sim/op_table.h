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

/// One operator's time over rows: a power law between neighbouring measurements, proportional to rows behind
/// the last, constant before the first. In seconds, the fixed part included.
class OpCurve {
 public:
  void add(double rows, double seconds);
  double seconds(double rows) const;
  /// Whether something was measured at just these rows.
  bool has(double rows) const;

 private:
  struct Point {
    double rows, seconds, log_rows, log_seconds;
  };
  std::vector<Point> points_;  // by rows
};

/// Curves over rows for several lengths of what each row works on (attention's context); of operators without
/// one, a single curve. The same rules along the length.
class OpSurface {
 public:
  void add(double length, double rows, double seconds) { curves_[length].add(rows, seconds); }
  double seconds(double rows, double length = 0) const;
  /// Whether something was measured at just this point.
  bool has(double rows, double length = 0) const;

 private:
  std::map<double, OpCurve> curves_;
};

class OpTable {
 public:
  std::string device;

  /// Null where nothing was measured. `sizes`: the operator's, in the order of docs/sim.md's table.
  const OpSurface* find(const std::string& op, const std::string& dtype,
                        const std::vector<int64_t>& sizes) const;
  void add(const std::string& op, const std::string& dtype, const std::vector<int64_t>& sizes, double rows,
           double seconds, double length = 0) {
    surfaces_[Key{op, dtype, sizes}].add(length, rows, seconds);
  }
  size_t size() const { return surfaces_.size(); }

 private:
  using Key = std::tuple<std::string, std::string, std::vector<int64_t>>;
  std::map<Key, OpSurface> surfaces_;
};

/// Which of the times of a file.
enum class OpTiming {
  kInChain,        ///< ms: one call behind the other, as in a step
  kBetweenEvents,  ///< span_ms: as a profile sees a call; ms where there is none
};

/// Throws FileError: broken JSON, sizes or times that are not positive. Operators that the step model has no
/// use for are skipped.
OpTable load_op_table(const std::filesystem::path& file, OpTiming timing = OpTiming::kInChain);

}  // namespace moge::sim
