#include "model/memory_fit.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/host_memory.h"

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

Fewer fewer_layers(const spec::ModelConfig& config, std::function<int64_t(const spec::ModelConfig&)> total) {
  return {.most = config.num_hidden_layers - 1,
          .total =
              [config, total = std::move(total)](int64_t n) {
                spec::ModelConfig shallower = config;
                shallower.num_hidden_layers = n;
                return total(shallower);
              },
          .text = [all = config.num_hidden_layers](int64_t n) { return str(n, " of ", all, " layers"); }};
}

Fewer shorter_context(int64_t context, std::function<int64_t(int64_t n)> total) {
  return {.most = context - 1, .total = std::move(total), .text = [](int64_t n) {
            return str("a context of ", n, n == 1 ? " token" : " tokens");
          }};
}

void check_fits(const ExecContext& ctx, std::span<const MemoryPart> parts, int64_t free,
                std::span<const Fewer> fewer) {
  const int64_t need = std::accumulate(parts.begin(), parts.end(), int64_t{0},
                                       [](int64_t sum, const MemoryPart& p) { return sum + p.bytes; });
  if (need <= free) return;
  const MemoryPart& too_large =
      parts[0].bytes > free ? parts[0] : *std::ranges::max_element(parts.subspan(1), {}, &MemoryPart::bytes);
  std::string would_fit = "Not even " + fewer.back().text(1);
  for (const Fewer& less : fewer)
    if (const int64_t n = largest_fit(less.most, free, less.total); n > 0) {
      would_fit = "At most " + less.text(n);
      break;
    }
  throw OutOfMemoryError(
      str("the plan does not fit ", ctx.backend ? "on " + ctx.backend->info().name : "in the CPU's memory",
          ": ", memory_text(parts), "; ", memory_text(free), " are free, ", memory_text(need - free),
          " too few for the ", too_large.name, ". ", would_fit, " would fit"));
}

}  // namespace moge::model
