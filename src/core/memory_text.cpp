#include "core/memory_text.h"

#include <iomanip>
#include <sstream>

#include "core/str.h"

namespace moge {

std::string memory_text(int64_t bytes) {
  double value = static_cast<double>(bytes) / (1 << 30);
  const char* unit = " GiB";
  for (const char* smaller : {" MiB", " KiB"}) {
    if (value >= 0.1) break;
    value *= 1024;
    unit = smaller;
  }
  std::ostringstream out;
  out << std::fixed << std::setprecision(unit[1] == 'G' ? 2 : 1) << value << unit;
  return out.str();
}

std::string memory_text(std::span<const MemoryPart> parts) {
  std::string text;
  for (const MemoryPart& part : parts)
    if (part.bytes > 0) text += (text.empty() ? "" : ", ") + str(part.name, " ", memory_text(part.bytes));
  return text;
}

}  // namespace moge
