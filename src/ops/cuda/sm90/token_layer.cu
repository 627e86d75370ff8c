// All that a layer does to one token between two attentions, in one launch (ops/token_layer.h). The blocks
// meet three times, where every one needs what all have computed: after o_proj, before down, and after down;
// a warp of each also looks for the others' parts of the router's logits. What is small (norms, quantisation,
// the choice of experts) every block computes for itself.
//
// Blocks wait for each other, so all have to be on the device: one launch at a time, on a device that no
// other kernel keeps for good.
#include "ops/cuda/token_layer.h"

#include <algorithm>

#include "core/match.h"
#include "ops/cuda/at_once.cuh"
#include "ops/cuda/sm90/token_layer_route.cuh"
#include "ops/cuda/sm90/token_layer_worker.cuh"

namespace moge::ops::cuda {

namespace token {
namespace {

__global__ void __launch_bounds__(kMaxThreads, 1) token_layer_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(128) uint8_t memory[];
  let_next_start();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  auto* const chunks = reinterpret_cast<Chunks*>(memory + p.at.chunks);
  if (warp < p.warps) {
    Worker worker(p, *chunks, memory);
    worker.begin();
    __syncthreads();
    worker.run();
  } else {
    begin_block(p, memory, chunks);
    __syncthreads();
    fetch_norms(p);
    route(p, chunks->own, memory);
  }
}

}  // namespace
}  // namespace token

namespace {

using token::kMaxSlots;
using token::kMaxWidth;

/// As many as the device has multiprocessors: a process uses one device.
int num_blocks() {
  return cuda_backend().info().num_sms;
}

int64_t shared_width(const TokenLayer& a) {
  return a.shared_down ? a.shared_down.dim(1) : 0;
}
int64_t num_hidden(const TokenLayer& a) {
  return a.experts_per_token * a.down.dim(2) + shared_width(a);
}

/// delta and h, in the workspace.
struct Between {
  explicit Between(const TokenLayer& a) {
    const auto take = [&](int64_t n) {
      const int64_t at = bytes;
      bytes += (n + 255) / 256 * 256;
      return at;
    };
    delta = take(a.x.dim(1) * 2);
    h = take(num_hidden(a) * 2);
  }
  int64_t delta, h, bytes = 0;
};
int64_t workspace_bytes(const ExecContext&, const TokenLayer& a) {
  return Between(a).bytes;
}

/// The sizes of p, and where things lie.
token::Params sizes_of(const TokenLayer& a) {
  const auto size = [](int64_t n) { return narrow(n, "token_layer: size"); };
  constexpr int kRowVecs = token::kThreadVecs * kWarp;
  token::Params p{};
  p.D = size(a.x.dim(1));
  p.A = size(a.attn_out.dim(1));
  p.F = size(a.down.dim(2));
  p.N = a.next_qkv ? size(a.next_qkv.dim(0)) : 0;
  p.E = size(a.gate.dim(0));
  p.K = a.experts_per_token;
  p.SF = size(shared_width(a));
  p.by_F = token::SmallDivisor(static_cast<unsigned>(p.F));
  const int blocks = num_blocks();
  p.of_D = token::Shares(p.D, blocks);
  p.of_N = token::Shares(p.N, blocks);
  p.of_SF = token::Shares(p.SF, blocks);
  p.of_pairs = token::Shares(p.K * p.F, blocks);
  p.teams = std::clamp(blocks / token::kTeamBlocks, 1, token::kMaxTeams);
  p.of_blocks = token::Shares(blocks, p.teams);
  p.down_slots = p.K + (p.SF + p.F - 1) / p.F;
  p.slots = p.K + (p.SF > 0 ? 1 : 0);
  p.warps = (p.D / kVec + kRowVecs - 1) / kRowVecs;
  token::Layout& at = p.at;
  const auto up = [](int n, int to) { return (n + to - 1) / to * to; };
  at.stage_bytes = std::max({p.D, p.A, p.F});
  at.factor_rows = std::min(token::kMaxRows, at.stage_bytes / std::min({p.D, p.A, p.F}));
  at.y_pitch = p.D / blocks + 1;
  const auto rows_of = [&](int width, token::SmallDivisor& by) {
    const int rows = std::min(token::kMaxRows, at.stage_bytes / width);
    by = token::SmallDivisor(static_cast<unsigned>(rows));
    return rows;
  };
  p.out_rows = rows_of(p.A, p.by_out_rows);
  p.down_rows = rows_of(p.F, p.by_down_rows);
  p.qkv_rows = rows_of(p.D, p.by_qkv_rows);
  const auto take = [&](int bytes) {
    const int begin = at.bytes;
    at.bytes += up(bytes, 16);
    return begin;
  };
  const int stages = p.warps * static_cast<int>(token::kWarpStages);
  at.ring = take(stages * at.stage_bytes);
  at.row = take(kMaxWidth);
  at.h = at.normed = take(std::max(size(num_hidden(a)), p.D * 2));
  at.y = take(p.K * at.y_pitch * 2);
  at.shared_sum = take(at.y_pitch * 4);
  at.shared_scale = take(at.y_pitch * 4);
  at.x = take(at.y_pitch * 4);
  at.h_scale = take(p.slots * static_cast<int>(sizeof(Divider)));
  at.h_max = take(p.slots * 4);
  at.expert = take(p.slots * 4);
  at.weight = take(p.slots * 4);
  at.keys = take(p.E * 4);
  at.partial = take(kWarp * static_cast<int>(sizeof(SumAndMax)));
  at.factors = take(stages * 2 * at.factor_rows * 4);
  at.kinds = take(stages * static_cast<int>(sizeof(token::Chunk::Kind)));
  at.full = take(stages * 8);
  at.routed = take(8);
  at.normed_there = take(8);
  at.met = take(8);
  at.chunks = take(static_cast<int>(sizeof(token::Chunks)));
  return p;
}

Refusal supports(const TokenLayer& a) {
  const auto fits = [](int64_t width, int most) {
    return width > 0 && width % token::kLaneBytes == 0 && width <= most
               ? Refusal()
               : str("width ", width, ": expected a multiple of ", token::kLaneBytes, ", at most ", most);
  };
  for (const Refusal& refusal :
       {fits(a.x.dim(1), kMaxWidth), fits(a.attn_out.dim(1), kMaxWidth),
        fits(a.down.dim(2), token::kMaxHidden),
        a.shared_down ? fits(shared_width(a), kMaxSlots * token::kMaxHidden) : Refusal()})
    if (!refusal.empty()) return refusal;
  if (a.next_qkv && a.next_qkv.dim(0) > token::kMaxFeatures)
    return str(a.next_qkv.dim(0), " rows of qkv: expected at most ", token::kMaxFeatures);
  if (a.gate.dim(0) > token::kMaxRouted)
    return str(a.gate.dim(0), " experts: expected at most ", token::kMaxRouted);
  const int64_t F = a.down.dim(2), slots = a.experts_per_token + (shared_width(a) + F - 1) / F;
  if (slots > kMaxSlots) return str(slots, " experts a token: expected at most ", kMaxSlots);
  for (const Tensor* t : {&a.x,
                          &a.qkv,
                          &a.normed,
                          &a.attn_out,
                          &a.o_proj,
                          &a.o_scale,
                          &a.o_bias,
                          &a.norm,
                          &a.gate,
                          &a.router_scale,
                          &a.gate_up,
                          &a.gate_up_scale,
                          &a.down,
                          &a.down_scale,
                          &a.shared_gate_up,
                          &a.shared_gate_up_scale,
                          &a.shared_down,
                          &a.shared_down_scale,
                          &a.next_norm,
                          &a.next_qkv,
                          &a.next_scale,
                          &a.next_bias}) {
    if (*t && !t->is_contiguous()) return str(t->str(), ": expected a contiguous tensor");
    if (reinterpret_cast<uintptr_t>(t->data) % 16 != 0)
      return str(t->str(), ": expected alignment to 16 bytes");
  }
  constexpr int kMostBytes = 227 * 1024;
  const int bytes = sizes_of(a).at.bytes;
  return bytes <= kMostBytes ? "" : str(bytes, " bytes of shared memory: expected at most ", kMostBytes);
}

void run(ExecContext& ctx, const TokenLayer& a, std::span<std::byte> workspace) {
  const auto f32 = [](const Tensor& t) { return t ? t.ptr<float>() : nullptr; };
  const auto i8 = [](const Tensor& t) { return t ? t.ptr<int8_t>() : nullptr; };
  const auto bf16 = [](const Tensor& t) { return t ? t.ptr<BF16>() : nullptr; };
  const Between between(a);
  token::Params p = sizes_of(a);
  p.x = f32(a.x);
  p.qkv = bf16(a.qkv);
  p.normed = bf16(a.normed);
  p.attn_out = bf16(a.attn_out);
  p.o_proj = i8(a.o_proj);
  p.o_scale = f32(a.o_scale);
  p.o_bias = f32(a.o_bias);
  p.norm = f32(a.norm);
  p.gate_up = i8(a.gate_up);
  p.gate_up_scale = f32(a.gate_up_scale);
  p.down = i8(a.down);
  p.down_scale = f32(a.down_scale);
  p.shared_gate_up = i8(a.shared_gate_up);
  p.shared_gate_up_scale = f32(a.shared_gate_up_scale);
  p.shared_down = i8(a.shared_down);
  p.shared_down_scale = f32(a.shared_down_scale);
  p.next_norm = f32(a.next_norm);
  p.next_qkv = i8(a.next_qkv);
  p.next_scale = f32(a.next_scale);
  p.next_bias = f32(a.next_bias);
  p.route = {.gate = f32(a.gate),
             .router_scale = f32(a.router_scale),
             .gate_stride = p.D,
             .T = 1,
             .D = p.D,
             .E = p.E,
             .K = a.experts_per_token,
             .group = p.E / a.num_groups,
             .group_picks = a.experts_per_token / a.num_groups,
             .group_inverse = ((1 << 16) * a.num_groups + p.E - 1) / p.E,
             .renormalize = a.renormalize};
  p.delta = reinterpret_cast<BF16*>(workspace.data() + between.delta);
  p.h = reinterpret_cast<BF16*>(workspace.data() + between.h);
  p.eps = a.eps;
  p.inverse_width = 1 / static_cast<float>(p.D);
  const int blocks = num_blocks();
  const LaunchConfig config{.grid = static_cast<unsigned>(blocks),
                            .block = static_cast<unsigned>((p.warps + 1) * kWarp),
                            .shared_bytes = p.at.bytes};
  const int at_once = clusters_at_once(ctx, "token_layer", token::token_layer_kernel, config);
  check<DeviceError>(at_once >= blocks, "token_layer: ", blocks, " blocks wait for each other, but only ",
                     at_once, " run at once");
  launch(ctx, "token_layer", token::token_layer_kernel, config, p);
}

}  // namespace

std::vector<Impl<TokenLayer>> token_layer_impls() {
  return {{"cuda.one_launch", DeviceKind::kCuda, supports, run, workspace_bytes}};
}

}  // namespace moge::ops::cuda
