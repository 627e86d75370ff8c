#include "sim/histogram.h"

#include <algorithm>
#include <cmath>

namespace moge::sim {

void Histogram::add(int64_t value, int64_t times) {
  if (value >= size()) counts_.resize(static_cast<size_t>(value) + 1);
  counts_[static_cast<size_t>(value)] += times;
  total_ += times;
}

void Histogram::add(const Histogram& other) {
  if (other.size() > size()) counts_.resize(other.counts_.size());
  for (size_t i = 0; i < other.counts_.size(); ++i) counts_[i] += other.counts_[i];
  total_ += other.total_;
}

double Histogram::mean() const {
  double sum = 0;
  for (size_t i = 0; i < counts_.size(); ++i) sum += static_cast<double>(i) * static_cast<double>(counts_[i]);
  return total_ > 0 ? sum / static_cast<double>(total_) : 0;
}

double Histogram::standard_deviation() const {
  if (total_ < 2) return 0;
  const double center = mean();
  double squares = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    const double d = static_cast<double>(i) - center;
    squares += d * d * static_cast<double>(counts_[i]);
  }
  return std::sqrt(squares / static_cast<double>(total_ - 1));
}

double Histogram::standard_error() const {
  return total_ > 0 ? standard_deviation() / std::sqrt(static_cast<double>(total_)) : 0;
}

int64_t Histogram::quantile(double p) const {
  const auto wanted = static_cast<int64_t>(std::ceil(p * static_cast<double>(total_)));
  int64_t seen = 0;
  for (int64_t value = 0; value < size(); ++value) {
    seen += count(value);
    if (seen >= std::max<int64_t>(wanted, 1)) return value;
  }
  return 0;
}

}  // namespace moge::sim
