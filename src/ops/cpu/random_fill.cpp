#include "ops/cpu/random_fill.h"

#include "core/rng.h"
#include "ops/cpu/element.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

void run(ExecContext& ctx, const RandomFill& a, std::span<std::byte>) {
  const Rng rng(a.seed);
  const float std = fill_std(a);
  parallel_for(*ctx.pool, a.x.numel(), rows_per_task(1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float x = std * rng.normal(static_cast<uint64_t>(i));
      store_element(a.x, i, a.of_bf16 ? to_f32(to_bf16(x)) : x);
    }
  });
}

}  // namespace

std::vector<Impl<RandomFill>> random_fill_impls() {
  return {{"cpu.ref", DeviceKind::kCpu, supports_all<RandomFill>, run}};
}

}  // namespace moge::ops::cpu
