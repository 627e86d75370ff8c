// The router by its definition: the three ops that it fuses, one after the other, in one implementation each.
#include "ops/cpu/moe_route.h"

#include <algorithm>
#include <string_view>

#include "ops/cpu/group_router.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/permute.h"
#include "ops/cpu/quantize.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/scratch.h"

namespace moge::ops::cpu {

namespace {

template <class Args>
Impl<Args> named(const std::vector<Impl<Args>>& impls, std::string_view name) {
  const auto found = std::ranges::find(impls, name, &Impl<Args>::name);
  dcheck(found != impls.end(), "moe_route: a part has no implementation ", name);
  return *found;
}

struct Isa {
  const vec::StoredRowKernels& stored;
  const char* name;  ///< of the product's and the router's implementation
  const char* permute;
};
constexpr Isa kAvx512{vec::avx512::stored_rows, "cpu.avx512", "cpu.blocks"};
constexpr Isa kAvx2{vec::avx2::stored_rows, "cpu.avx2", "cpu.blocks"};
constexpr Isa kRef{stored_rows_ref, "cpu.ref", "cpu.ref"};

struct PartImpls {
  explicit PartImpls(const Isa& isa)
      : product(named(matmul_nt_impls(), isa.name)),
        router(named(group_router_fwd_impls(), isa.name)),
        permute(named(permute_fwd_impls(), isa.permute)) {}
  Impl<MatmulNT> product;
  Impl<GroupRouterFwd> router;
  Impl<PermuteFwd> permute;
};

/// Looked up at the first call.
template <const Isa& isa>
const PartImpls& part_impls() {
  static const PartImpls impls(isa);
  return impls;
}

/// The three and what passes between them, in the workspace.
struct Parts {
  Parts(const ExecContext& ctx, const MoeRoute& a, const PartImpls& impls, Scratch scratch) {
    const int64_t T = a.x.dim(0), D = a.x.dim(1), E = a.gate.dim(0);
    const auto take = [&](Shape shape) {
      return Tensor(scratch.take<float>(shape.numel()), DType::kF32, shape);
    };
    product = {.c = take({T, E}), .a = take({T, D}), .w = a.gate};
    router = {.topk_ids = a.topk_ids,
              .topk_weights = a.topk_weights,
              .probs = take({T, E}),
              .lse = take({T}),
              .logits = product.c,
              .router_scale = a.router_scale,
              .num_groups = a.num_groups,
              .renormalize = a.renormalize};
    permute = {.offsets = a.offsets,
               .row_token = a.row_token,
               .row_weight = a.row_weight,
               .slot_row = a.slot_row,
               .topk_ids = a.topk_ids,
               .topk_weights = a.topk_weights};
    const auto bytes = [&](const auto& impl, const auto& args) {
      return impl.workspace_bytes ? impl.workspace_bytes(ctx, args) : 0;
    };
    const int64_t most =
        std::max({bytes(impls.product, product), bytes(impls.router, router), bytes(impls.permute, permute)});
    workspace = {scratch.take<std::byte>(most), static_cast<size_t>(most)};
    used_bytes = scratch.used_bytes();
  }
  MatmulNT product;
  GroupRouterFwd router;
  PermuteFwd permute;
  std::span<std::byte> workspace;  ///< of each in turn
  int64_t used_bytes;
};

template <const Isa& isa>
void run(ExecContext& ctx, const MoeRoute& a, std::span<std::byte> ws) {
  const PartImpls& impls = part_impls<isa>();
  const Parts parts(ctx, a, impls, Scratch(ws));
  const int64_t D = a.x.dim(1);
  const Rows<float> x(parts.product.a);
  parallel_for(*ctx.pool, a.x.dim(0), rows_per_task(D), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) load_row(isa.stored, x[t], a.x, t * a.x.stride(0), D);
  });
  impls.product.run(ctx, parts.product, parts.workspace);
  impls.router.run(ctx, parts.router, parts.workspace);
  impls.permute.run(ctx, parts.permute, parts.workspace);
}

template <const Isa& isa>
int64_t workspace(const ExecContext& ctx, const MoeRoute& a) {
  return Parts(ctx, a, part_impls<isa>(), Scratch()).used_bytes;
}

Refusal supports_avx512(const MoeRoute& a) {
  const Refusal no = needs_avx512(a);
  if (no.empty() && a.gate.dtype == DType::kBF16 && !cpu_info().avx512_bf16)
    return "this CPU has no AVX-512 BF16";
  return no;
}

}  // namespace

std::vector<Impl<MoeRoute>> moe_route_impls() {
  return {{kAvx512.name, DeviceKind::kCpu, supports_avx512, run<kAvx512>, workspace<kAvx512>},
          {kAvx2.name, DeviceKind::kCpu, needs_avx2<MoeRoute>, run<kAvx2>, workspace<kAvx2>},
          {kRef.name, DeviceKind::kCpu, supports_all<MoeRoute>, run<kRef>, workspace<kRef>}};
}

}  // namespace moge::ops::cpu
