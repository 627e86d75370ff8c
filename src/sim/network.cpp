#include "sim/network.h"

#include <algorithm>

#include "core/error.h"

namespace moge::sim {

int64_t max_devices(const spec::Hardware& hardware) {
  return hardware.interconnect.empty() ? 1 : hardware.interconnect.back().devices;
}

CollectiveRates collective_rates(const spec::Hardware& hardware, int64_t group, double efficiency,
                                 int64_t stride) {
  const int64_t limit = max_devices(hardware);
  const int64_t span = (group - 1) * stride + 1;
  check<UsageError>(limit == 0 || span <= limit, hardware.name, " joins ", limit, " devices, the plan needs ",
                    span);
  CollectiveRates rates;
  const auto n = static_cast<double>(group);
  int64_t below = 1;  // devices joined by the level inside this one
  for (const spec::LinkLevel& level : hardware.interconnect) {
    if (group == 1 || span <= below) break;
    const double bandwidth = level.bandwidth.value * efficiency;
    const int64_t joined = level.devices == 0 ? group : std::min(group, level.devices / stride);
    if (level.kind == spec::LinkLevel::Kind::kMesh) {
      // What comes from outside comes by other links, a part to each device, and is spread like the rest.
      if (joined > 1) {
        rates.gather = std::max(rates.gather, 1 / (static_cast<double>(joined) * bandwidth));
        rates.all_to_all = std::max(rates.all_to_all, 1 / (n * n * bandwidth));
      }
    } else {
      const auto u = static_cast<double>(std::clamp<int64_t>(level.unit_devices / stride, 1, group));
      const auto sharing = static_cast<double>(std::min(stride, level.unit_devices));
      rates.gather = std::max(rates.gather, sharing * (1 - u / n) / bandwidth);
      rates.all_to_all = std::max(rates.all_to_all, sharing * u * (n - u) / (n * n) / bandwidth);
    }
    below = level.devices == 0 ? span : level.devices;
  }
  return rates;
}

double send_rate(const spec::Hardware& hardware, int64_t distance, double efficiency) {
  for (const spec::LinkLevel& level : hardware.interconnect) {
    const bool reaches = level.devices == 0 || distance < level.devices;
    if (reaches) {
      // All devices of a unit send to the next stage at once.
      const auto sharers = static_cast<double>(std::min(level.unit_devices, distance));
      return sharers / (level.bandwidth.value * efficiency);
    }
  }
  throw UsageError(
      str(hardware.name, " joins ", max_devices(hardware), " devices, the plan needs more than ", distance));
}

}  // namespace moge::sim
