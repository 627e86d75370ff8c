// Counts of whole numbers: exact to add up, so results do not depend on who counted which part.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace moge::sim {

class Histogram {
 public:
  /// value >= 0.
  void add(int64_t value, int64_t times = 1);
  void add(const Histogram& other);

  int64_t total() const { return total_; }
  /// One more than the largest value that was added.
  int64_t size() const { return static_cast<int64_t>(counts_.size()); }
  int64_t count(int64_t value) const { return value < size() ? counts_[static_cast<size_t>(value)] : 0; }

  /// The statistics below are 0 for an empty histogram.
  double mean() const;
  /// Of the sample: divided by total() - 1.
  double standard_deviation() const;
  /// Of mean(): standard_deviation() / sqrt(total()).
  double standard_error() const;
  /// The smallest value that at least p (0..1) of the counts do not exceed.
  int64_t quantile(double p) const;

 private:
  std::vector<int64_t> counts_;
  int64_t total_ = 0;
};

}  // namespace moge::sim
