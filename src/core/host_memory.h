// How much memory the CPU side of this process may still take.
#pragma once
#include <cstdint>

namespace moge {

/// The least of what the kernel can give without swapping (MemAvailable), what the limit of a container's
/// control group leaves, page cache counted as free, and what RLIMIT_AS leaves. INT64_MAX where none of them
/// is known.
int64_t host_free_bytes();

}  // namespace moge
