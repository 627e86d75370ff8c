// The router of a serving step: for few tokens one kernel (route_few.cuh); else one for the logits, one that
// chooses experts (route_many.cuh) and one that lists each expert's rows (route_permutation.cuh). A token's
// logits are the same bits in all of them (router_steps.cuh).
//
// An expert's place among its group is the number of experts above it, so all picks of a token are found at
// once, by one warp, and nothing is sorted.
#include "ops/cuda/moe_route.h"

#include "core/match.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/route_few.cuh"
#include "ops/cuda/route_many.cuh"
#include "ops/cuda/route_permutation.cuh"
#include "ops/cuda/tensor_map.h"

namespace moge::ops::cuda {

namespace {

Refusal supports(const MoeRoute& a) {
  const int64_t E = a.gate.dim(0);
  if (E > kMaxExperts) return str(E, " experts: expected at most ", kMaxExperts);
  for (const Tensor* t : {&a.x, &a.gate})
    if (!rows_in_vecs(*t)) return str(t->str(), ": expected rows of aligned vectors of ", kVec);
  for (const Tensor* t : {&a.offsets, &a.row_token, &a.row_weight})
    if (!t->is_contiguous()) return str(t->str(), ": expected contiguous");
  return "";
}

/// Few experts a lane: short code, which is what a short kernel waits for.
bool few_experts(int64_t E) {
  return E <= 2 * kWarp;
}
constexpr int kManyLaneExperts = kMaxExperts / kWarp;

bool is_few(int64_t T, int64_t E) {
  constexpr int kMaxShared = 200 * 1024;
  return T <= kTokenTile && few_shared_bytes(static_cast<int>(T), static_cast<int>(E)) <= kMaxShared;
}

/// About as many blocks as there are multiprocessors, or three times as many small ones.
template <class Call>
auto with_tile(int64_t T, const Call& call) {
  if (T <= 384) return call(RouteTile<32, 32>{});
  if (T <= 1024) return call(RouteTile<64, 8>{});
  if (T <= 2048) return call(RouteTile<128, 8>{});
  return call(RouteTile<128, 4>{});
}

struct WorkspaceLayout {
  WorkspaceLayout(int64_t T, int64_t E) {
    if (T == 0 || is_few(T, E)) return;
    const int64_t num_parts = with_tile(T, []<class Tile>(Tile) { return Tile::kParts; });
    chunks = (T + kWarp - 1) / kWarp;
    parts_bytes = num_parts * T * E * size_of(DType::kF32);
    bytes = parts_bytes + chunks * E * size_of(DType::kI32);
  }
  int64_t chunks = 0, parts_bytes = 0, bytes = 0;
};
int64_t workspace_bytes(const ExecContext&, const MoeRoute& a) {
  return WorkspaceLayout(a.x.dim(0), a.gate.dim(0)).bytes;
}

template <class Gate>
void launch_few(ExecContext& ctx, const RouteParams<Gate>& p) {
  launch(ctx, "moe_route",
         few_experts(p.E) ? route_few_kernel<Gate, 2> : route_few_kernel<Gate, kManyLaneExperts>,
         {.grid = kFewRanks,
          .block = kFewThreads,
          .shared_bytes = few_shared_bytes(p.T, p.E),
          .cluster = kFewRanks},
         p);
}

template <class Gate>
void launch_permute(ExecContext& ctx, const RouteParams<Gate>& p) {
  const int threads = p.T > kPassChunks ? kPermuteThreads : kPassChunks;
  launch(ctx, "moe_route", permute_kernel<Gate>,
         {.grid = static_cast<unsigned>(p.E + p.S), .block = static_cast<unsigned>(threads)}, p);
}

template <class Tile, class Gate>
void launch_product(ExecContext& ctx, const RouteParams<Gate>& p) {
  using Stage = RouteStage<Gate, Tile>;
  constexpr int kOfElement = sizeof(Gate) / 2;
  const CUtensorMap x_map = matrix_map("moe_route", p.x, DType::kBF16, p.T, p.D, Tile::kTokens,
                                       Stage::kBoxColumns, L2Fetch::k256, p.x_stride);
  const CUtensorMap gate_map =
      matrix_map("moe_route", p.gate, DType::kBF16, p.E, int64_t{p.D} * kOfElement, kExpertBlock,
                 Stage::kBoxColumns, L2Fetch::k256, p.gate_stride * kOfElement);
  const auto ceil = [](int a, int b) { return static_cast<unsigned>((a + b - 1) / b); };
  launch(ctx, "moe_route", route_product_kernel<Gate, Tile>,
         {.grid = {ceil(p.T, Tile::kTokens) * Tile::kRanks, ceil(p.E, kExpertBlock)},
          .block = kProductThreads,
          .shared_bytes = Stage::kInRing * Stage::kBytes},
         x_map, gate_map, p);
}

template <int kParts, bool kLastKernel, class Gate>
void launch_select(ExecContext& ctx, const RouteParams<Gate>& p) {
  const int warps = kLastKernel ? p.T : kSelectWarps<false>;
  launch(ctx, "moe_route",
         few_experts(p.E) ? select_kernel<Gate, kParts, 2, kLastKernel>
                          : select_kernel<Gate, kParts, kManyLaneExperts, kLastKernel>,
         {.grid = static_cast<unsigned>(kLastKernel ? 1 : p.chunks * kWarp / warps),
          .block = static_cast<unsigned>(warps * kWarp),
          .shared_bytes = (1 + warps) * p.E * 4},
         p);
}

template <class Gate>
void launch_many(ExecContext& ctx, const RouteParams<Gate>& p) {
  with_tile(p.T, [&]<class Tile>(Tile) {
    launch_product<Tile>(ctx, p);
    if (p.chunks == 1) return launch_select<Tile::kParts, true>(ctx, p);
    launch_select<Tile::kParts, false>(ctx, p);
    launch_permute(ctx, p);
  });
}

template <class Gate>
void run_as(ExecContext& ctx, const MoeRoute& a, std::span<std::byte> workspace) {
  const int64_t T = a.x.dim(0), E = a.gate.dim(0);
  const WorkspaceLayout layout(T, E);
  const int32_t K = narrow(a.topk_ids.dim(1), "moe_route: K");
  const RouteParams<Gate> p{
      .x = a.x.ptr<BF16>(),
      .gate = a.gate.ptr<Gate>(),
      .router_scale = a.router_scale ? a.router_scale.ptr<float>() : nullptr,
      .topk_ids = a.topk_ids.ptr<int32_t>(),
      .topk_weights = a.topk_weights.ptr<float>(),
      .offsets = a.offsets.ptr<int32_t>(),
      .row_token = a.row_token.ptr<int32_t>(),
      .row_weight = a.row_weight.ptr<float>(),
      .slot_row = a.slot_row.ptr<int32_t>(),
      .parts = reinterpret_cast<float*>(workspace.data()),
      .chosen = reinterpret_cast<uint32_t*>(workspace.data() + layout.parts_bytes),
      .x_stride = a.x.stride(0),
      .gate_stride = a.gate.stride(0),
      .ids_stride = narrow(a.topk_ids.stride(0), "moe_route: stride of topk_ids"),
      .weights_stride = narrow(a.topk_weights.stride(0), "moe_route: stride of topk_weights"),
      .slots_stride = narrow(a.slot_row.stride(0), "moe_route: stride of slot_row"),
      .T = narrow(T, "moe_route: T"),
      .D = narrow(a.x.dim(1), "moe_route: D"),
      .E = narrow(E, "moe_route: E"),
      .K = K,
      .S = narrow(a.slot_row.dim(1) - K, "moe_route: S"),
      .chunks = narrow(layout.chunks, "moe_route: chunks"),
      .group = narrow(E / a.num_groups, "moe_route: experts of a group"),
      .group_picks = K / a.num_groups,
      .group_inverse = static_cast<int>(((1 << 16) * a.num_groups + E - 1) / E),
      .renormalize = a.renormalize};
  if (p.T == 0)
    launch_permute(ctx, p);
  else if (is_few(p.T, p.E))
    launch_few(ctx, p);
  else
    launch_many(ctx, p);
}

void run(ExecContext& ctx, const MoeRoute& a, std::span<std::byte> workspace) {
  a.gate.dtype == DType::kBF16 ? run_as<BF16>(ctx, a, workspace) : run_as<float>(ctx, a, workspace);
}

}  // namespace

std::vector<Impl<MoeRoute>> moe_route_impls() {
  return {{"cuda.mma", DeviceKind::kCuda, supports, run, workspace_bytes}};
}

}  // namespace moge::ops::cuda
