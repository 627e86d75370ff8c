// Collectives of one device group on a machine's interconnect (spec::LinkLevel), as seconds a byte. A group
// of n devices are neighbours. S = bytes of the whole tensor, m = the group's devices that a mesh joins, u =
// those that share one end of a switch's link:
//
//   all-gather, reduce-scatter    mesh: S / m over each pair's own link
//                                 switch: what a unit must take in, (1 - u/n) S, over the unit's link
//   all-reduce                    both of them one after the other: twice the bytes
//   all-to-all                    each device sends S / n, a share 1/n of it to every device; a unit's link
//                                 carries u (n - u) / n of S / n
//
// A collective that spans several levels works in all at once: the slowest level counts. Two devices of a
// mesh share one link, eight have seven each: bandwidth grows with the peers one talks to.
#pragma once
#include <cstdint>
#include <vector>

#include "spec/hardware.h"

namespace moge::sim {

/// Seconds for each byte of S; 0 for a group of one.
struct CollectiveRates {
  double gather = 0;      ///< all-gather or reduce-scatter
  double all_to_all = 0;  ///< S = bytes that all devices of the group send together
};

/// The rates of `group` devices `stride` apart, at the links' peak times `efficiency`; the groups of the
/// devices between them work at the same time. Throws UsageError for more devices than the interconnect
/// joins.
CollectiveRates collective_rates(const spec::Hardware& hardware, int64_t group, double efficiency,
                                 int64_t stride = 1);

/// Seconds a byte from one device to the device `distance` places on (a pipeline's next stage).
double send_rate(const spec::Hardware& hardware, int64_t distance, double efficiency);

/// The largest group; 0: no limit.
int64_t max_devices(const spec::Hardware& hardware);

}  // namespace moge::sim
