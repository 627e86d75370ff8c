// Rings of slots in shared memory, each with a pair of mbarriers (barrier.cuh).
#pragma once
#include <cstdint>

namespace moge::ops::cuda {

/// Where a warp is in a ring: the slot, and the parity of the round.
struct RingPosition {
  int slot = 0;
  uint32_t round = 0;
  __device__ __forceinline__ void next(int count) {
    if (++slot == count) slot = 0, round ^= 1;
  }
};

}  // namespace moge::ops::cuda
