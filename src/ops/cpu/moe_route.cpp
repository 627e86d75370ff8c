// The router by its definition: the references of the three ops that it fuses, one after the other.
#include "ops/cpu/moe_route.h"

#include "ops/cpu/group_router.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/permute.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/scratch.h"

namespace moge::ops::cpu {

namespace {

/// What passes between the three, in the workspace.
struct Parts {
  Parts(const ExecContext& ctx, const MoeRoute& a, Scratch scratch) {
    const int64_t T = a.x.dim(0), D = a.x.dim(1), E = a.gate.dim(0);
    const auto take = [&](Shape shape) {
      return Tensor(scratch.take<float>(shape.numel()), DType::kF32, shape);
    };
    x = take({T, D});
    router = {.topk_ids = a.topk_ids,
              .topk_weights = a.topk_weights,
              .probs = take({T, E}),
              .lse = take({T}),
              .logits = take({T, E}),
              .router_scale = a.router_scale,
              .num_groups = a.num_groups,
              .renormalize = a.renormalize};
    const int64_t bytes = router_impl.workspace_bytes(ctx, router);
    router_workspace = {scratch.take<std::byte>(bytes), static_cast<size_t>(bytes)};
    used_bytes = scratch.used_bytes();
  }
  Impl<GroupRouterFwd> router_impl = group_router_fwd_impls().back();
  Tensor x;
  GroupRouterFwd router;
  std::span<std::byte> router_workspace;
  int64_t used_bytes;
};

void run(ExecContext& ctx, const MoeRoute& a, std::span<std::byte> ws) {
  const Parts parts(ctx, a, Scratch(ws));
  const Rows<float> x(parts.x);
  const Rows<BF16> from(a.x);
  for (int64_t t = 0; t < a.x.dim(0); ++t)
    std::transform(from[t], from[t] + a.x.dim(1), x[t], [](BF16 v) { return to_f32(v); });
  matmul_nt_ref(ctx, {.c = parts.router.logits, .a = parts.x, .w = a.gate}, {});
  parts.router_impl.run(ctx, parts.router, parts.router_workspace);
  permute_fwd_impls().back().run(ctx,
                                 {.offsets = a.offsets,
                                  .row_token = a.row_token,
                                  .row_weight = a.row_weight,
                                  .slot_row = a.slot_row,
                                  .topk_ids = a.topk_ids,
                                  .topk_weights = a.topk_weights},
                                 {});
}

int64_t workspace(const ExecContext& ctx, const MoeRoute& a) {
  return Parts(ctx, a, Scratch()).used_bytes;
}

}  // namespace

std::vector<Impl<MoeRoute>> moe_route_impls() {
  return {{"cpu.ref", DeviceKind::kCpu, supports_all<MoeRoute>, run, workspace}};
}

}  // namespace moge::ops::cpu
