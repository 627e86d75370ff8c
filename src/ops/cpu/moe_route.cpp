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

/// A list's implementation by name, or its last: the reference, or all that there is for every CPU.
template <class Args>
Impl<Args> named(std::vector<Impl<Args>> impls, std::string_view name) {
  const auto found = std::ranges::find(impls, name, &Impl<Args>::name);
  return found == impls.end() ? impls.back() : *found;
}

/// The three and what passes between them, in the workspace.
struct Parts {
  Parts(const ExecContext& ctx, const MoeRoute& a, const char* isa, Scratch scratch)
      : product_impl(named(matmul_nt_impls(), isa)),
        router_impl(named(group_router_fwd_impls(), isa)),
        permute_impl(named(permute_fwd_impls(), isa == std::string_view("cpu.ref") ? isa : "cpu.blocks")) {
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
        std::max({bytes(product_impl, product), bytes(router_impl, router), bytes(permute_impl, permute)});
    workspace = {scratch.take<std::byte>(most), static_cast<size_t>(most)};
    used_bytes = scratch.used_bytes();
  }
  Impl<MatmulNT> product_impl;
  Impl<GroupRouterFwd> router_impl;
  Impl<PermuteFwd> permute_impl;
  MatmulNT product;
  GroupRouterFwd router;
  PermuteFwd permute;
  std::span<std::byte> workspace;  ///< of each in turn
  int64_t used_bytes;
};

template <const vec::StoredRowKernels& stored>
constexpr const char* kIsa = "cpu.ref";
template <>
constexpr const char* kIsa<vec::avx2::stored_rows> = "cpu.avx2";
template <>
constexpr const char* kIsa<vec::avx512::stored_rows> = "cpu.avx512";

template <const vec::StoredRowKernels& stored>
void run(ExecContext& ctx, const MoeRoute& a, std::span<std::byte> ws) {
  const Parts parts(ctx, a, kIsa<stored>, Scratch(ws));
  const int64_t D = a.x.dim(1);
  const Rows<float> x(parts.product.a);
  parallel_for(*ctx.pool, a.x.dim(0), rows_per_task(D), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) load_row(stored, x[t], a.x, t * a.x.stride(0), D);
  });
  parts.product_impl.run(ctx, parts.product, parts.workspace);
  parts.router_impl.run(ctx, parts.router, parts.workspace);
  parts.permute_impl.run(ctx, parts.permute, parts.workspace);
}

template <const vec::StoredRowKernels& stored>
int64_t workspace(const ExecContext& ctx, const MoeRoute& a) {
  return Parts(ctx, a, kIsa<stored>, Scratch()).used_bytes;
}

Refusal supports_avx512(const MoeRoute& a) {
  const Refusal no = needs_avx512(a);
  if (no.empty() && a.gate.dtype == DType::kBF16 && !cpu_info().avx512_bf16)
    return "this CPU has no AVX-512 BF16";
  return no;
}

}  // namespace

std::vector<Impl<MoeRoute>> moe_route_impls() {
  return {{"cpu.avx512", DeviceKind::kCpu, supports_avx512, run<vec::avx512::stored_rows>,
           workspace<vec::avx512::stored_rows>},
          {"cpu.avx2", DeviceKind::kCpu, needs_avx2<MoeRoute>, run<vec::avx2::stored_rows>,
           workspace<vec::avx2::stored_rows>},
          {"cpu.ref", DeviceKind::kCpu, supports_all<MoeRoute>, run<stored_rows_ref>,
           workspace<stored_rows_ref>}};
}

}  // namespace moge::ops::cpu
