// Refuses updates whose loss is not finite or jumps: a running mean and variance of the accepted losses.
#pragma once
#include <cmath>
#include <cstdint>

namespace moge::train {

/// Plain numbers, so that a checkpoint holds them.
struct SpikeGuard {
  double mean = 0;
  double variance = 0;
  int64_t count = 0;

  static constexpr double kMemory = 0.98;  ///< weight of the past: about 50 steps
  static constexpr int64_t kWarmup = 50;   ///< accepted losses before it judges

  /// True if the update should happen; then the loss enters the statistics. `sigmas` 0: only finite matters.
  bool accept(double loss, double sigmas) {
    if (!std::isfinite(loss)) return false;
    if (sigmas > 0 && count >= kWarmup && loss - mean > sigmas * std::sqrt(variance)) return false;
    const double keep = count == 0 ? 0 : kMemory;
    const double delta = loss - mean;
    mean += (1 - keep) * delta;
    variance = keep * (variance + (1 - keep) * delta * delta);
    ++count;
    return true;
  }
};

}  // namespace moge::train
