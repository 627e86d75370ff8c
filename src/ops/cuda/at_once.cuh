// How much of a kernel a device runs at once: what kernels need to know whose blocks wait for each other.
#pragma once
#include <map>
#include <mutex>
#include <tuple>

#include "ops/cuda/launch.cuh"

namespace moge::ops::cuda {

/// max_active_clusters(), asked once for a kernel, its configuration and a device. Throws DeviceError when
/// not even one cluster fits.
template <class... Params>
int clusters_at_once(const ExecContext& ctx, const char* op, void (*kernel)(Params...),
                     const LaunchConfig& c) {
  static std::mutex mutex;
  static std::map<std::tuple<void (*)(Params...), const Backend*, unsigned, int, int>, int> known;
  const std::lock_guard lock(mutex);
  const std::tuple key(kernel, static_cast<const Backend*>(ctx.backend), c.block.x, c.shared_bytes,
                       c.cluster);
  auto it = known.find(key);
  if (it == known.end()) it = known.emplace(key, max_active_clusters(op, kernel, c)).first;
  check<DeviceError>(it->second > 0, op, ": no multiprocessor of ", ctx.backend->info().name,
                     " has room for ", c.block.x, " threads with ", c.shared_bytes,
                     " bytes of shared memory, clusters of ", c.cluster);
  return it->second;
}

}  // namespace moge::ops::cuda
