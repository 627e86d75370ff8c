// Sizes of memory as people read them.
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace moge {

/// "12.34 GiB"; less than a tenth of one: "56.7 MiB", and so on to "8.9 KiB".
std::string memory_text(int64_t bytes);

/// One purpose of a memory plan.
struct MemoryPart {
  const char* name;  ///< "KV cache"
  int64_t bytes;
};
/// "weights 68.20 GiB, KV cache 1.50 GiB": those that are not empty.
std::string memory_text(std::span<const MemoryPart> parts);

}  // namespace moge
