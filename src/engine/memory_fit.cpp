#include "engine/memory_fit.h"

#include "core/host_memory.h"
#include "core/memory_text.h"

namespace moge::engine {

int64_t free_bytes(const ExecContext& ctx) {
  return ctx.backend ? ctx.backend->free_bytes() : host_free_bytes();
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
