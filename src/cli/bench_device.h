// Benchmarks of serving on a GPU: what `moge bench decode | prefill | ops` run when there is one.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "cli/served_model.h"

namespace moge::cli {

struct DeviceBenchOptions {
  ModelOptions model;
  int64_t layers = 0;  ///< 0: all
  int64_t batch = 1;   ///< sequences
  int64_t context = 2048;
  int64_t steps = 64;
  bool profile = false;
  bool eager = false;
  bool json = false;
};

/// A step of `batch` sequences that hold `context` tokens each.
void bench_device_decode(const DeviceBenchOptions& options);
/// `batch` prompts of `context` tokens in one pass.
void bench_device_prefill(const DeviceBenchOptions& options);

}  // namespace moge::cli
