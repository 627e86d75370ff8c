#include "model/memory_fit.h"

#include "core/host_memory.h"
#include "core/memory_text.h"

namespace moge::model {

namespace {

/// The largest n of 0..most for which total(n) bytes are at most `free`; total(0) is not asked.
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

}  // namespace

int64_t free_bytes(const ExecContext& ctx) {
  return ctx.backend ? ctx.backend->free_bytes() : host_free_bytes();
}

void check_fits(const ExecContext& ctx, const std::string& parts, int64_t need, int64_t free,
                const Fewer& fewer, const spec::ModelConfig& config,
                const std::function<int64_t(const spec::ModelConfig&)>& total) {
  if (need <= free) return;
  const Fewer layers{.most = config.num_hidden_layers - 1,
                     .total =
                         [&](int64_t n) {
                           spec::ModelConfig shallower = config;
                           shallower.num_hidden_layers = n;
                           return total(shallower);
                         },
                     .text = [&](int64_t n) { return str(n, " of ", config.num_hidden_layers, " layers"); }};
  std::string would_fit = "Not even one layer";
  for (const Fewer* less : {&fewer, &layers})
    if (const int64_t n = largest_fit(less->most, free, less->total); n > 0) {
      would_fit = less->text(n);
      break;
    }
  throw OutOfMemoryError(str("the plan does not fit ",
                             ctx.backend ? "on " + ctx.backend->info().name : "in the CPU's memory", ": ",
                             parts, "; ", memory_text(free), " are free, ", memory_text(need - free),
                             " too few. ", would_fit, " would fit"));
}

}  // namespace moge::model
