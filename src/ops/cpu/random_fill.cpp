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
    rng.for_normals(static_cast<uint64_t>(begin), static_cast<uint64_t>(end), [&](uint64_t i, float normal) {
      const float x = std * normal;
      store_element(a.x, static_cast<int64_t>(i), a.of_bf16 ? to_f32(to_bf16(x)) : x);
    });
  });
}

}  // namespace

std::vector<Impl<RandomFill>> random_fill_impls() {
  return {{"cpu.ref", DeviceKind::kCpu, supports_all<RandomFill>, run}};
}

}  // namespace moge::ops::cpu
