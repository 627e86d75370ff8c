#include "engine/memory_fit.h"

#include <iomanip>
#include <sstream>

#include "core/host_memory.h"

namespace moge::engine {

int64_t free_bytes(const ExecContext& ctx) {
  return ctx.backend ? ctx.backend->free_bytes() : host_free_bytes();
}

std::string memory_text(int64_t bytes) {
  const double gib = static_cast<double>(bytes) / (1 << 30);
  std::ostringstream out;
  out << std::fixed;
  if (gib < 0.1)
    out << std::setprecision(1) << gib * 1024 << " MiB";
  else
    out << std::setprecision(2) << gib << " GiB";
  return out.str();
}

int64_t largest_fit(int64_t most, int64_t free, const std::function<int64_t(int64_t)>& total) {
  int64_t low = 0;
  while (low < most) {
    const int64_t middle = low + (most - low + 1) / 2;
    if (total(middle) <= free)
      low = middle;
    else
      most = middle - 1;
  }
  return low;
}

void refuse_plan(const std::string& where, const std::string& parts, int64_t need, int64_t free,
                 const std::string& would_fit) {
  throw OutOfMemoryError(str("the plan does not fit ", where, ": ", parts, "; ", memory_text(free),
                             " are free, ", memory_text(need - free), " too few. ", would_fit));
}

}  // namespace moge::engine
