// Sizes of memory as people read them.
#pragma once
#include <cstdint>
#include <string>

namespace moge {

/// "12.34 GiB"; less than a tenth of one: "56.7 MiB", and so on to "8.9 KiB".
std::string memory_text(int64_t bytes);

}  // namespace moge
