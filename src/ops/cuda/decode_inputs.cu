// A thread per sequence.
#include "ops/cuda/decode_inputs.h"

#include "ops/cuda/launch.cuh"

namespace moge::ops::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int32_t kNoSlot = -1;

struct Params {
  int32_t *kv_lens, *positions, *slots;
  int64_t* steps;
  int32_t* output_counts;
  const int32_t* tokens;
  const int32_t* block_table;
  int64_t table_row, counts_row;
  int B, MP, PS;
};

__global__ void decode_inputs_kernel(const __grid_constant__ Params p) {
  wait_for_previous();
  let_next_start();
  const int b = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (b >= p.B) return;
  const int position = p.kv_lens[b];
  if (position < 0) {
    p.positions[b] = 0;
    p.slots[b] = kNoSlot;
    return;
  }
  p.kv_lens[b] = position + 1;
  p.positions[b] = position;
  // A sequence that outgrew its pages is the caller's mistake; it must not write into another's.
  p.slots[b] = position / p.PS < p.MP
                   ? p.block_table[b * p.table_row + position / p.PS] * p.PS + position % p.PS
                   : kNoSlot;
  if (p.steps) ++p.steps[b];
  if (p.output_counts) ++p.output_counts[b * p.counts_row + p.tokens[b]];
}

void decode_inputs(ExecContext& ctx, const DecodeInputs& a, std::span<std::byte>) {
  const auto B = static_cast<int>(a.kv_lens.dim(0));
  if (B == 0) return;
  const Params p{.kv_lens = a.kv_lens.ptr<int32_t>(),
                 .positions = a.positions.ptr<int32_t>(),
                 .slots = a.slots.ptr<int32_t>(),
                 .steps = a.steps ? a.steps.ptr<int64_t>() : nullptr,
                 .output_counts = a.output_counts ? a.output_counts.ptr<int32_t>() : nullptr,
                 .tokens = a.output_counts ? a.tokens.ptr<int32_t>() : nullptr,
                 .block_table = a.block_table.ptr<int32_t>(),
                 .table_row = a.block_table.stride(0),
                 .counts_row = a.output_counts ? a.output_counts.stride(0) : 0,
                 .B = B,
                 .MP = static_cast<int>(a.block_table.dim(1)),
                 .PS = a.page_size};
  launch(ctx, "decode_inputs", decode_inputs_kernel,
         {.grid = static_cast<unsigned>((B + kThreads - 1) / kThreads), .block = kThreads}, p);
}

Refusal decode_inputs_refusal(const DecodeInputs& a) {
  const bool contiguous = a.kv_lens.is_contiguous() && a.positions.is_contiguous() &&
                          a.slots.is_contiguous() && (!a.steps || a.steps.is_contiguous()) &&
                          (!a.tokens || a.tokens.is_contiguous());
  return contiguous ? Refusal() : "expected contiguous vectors";
}

}  // namespace

std::vector<Impl<DecodeInputs>> decode_inputs_impls() {
  return {{"cuda.simple", DeviceKind::kCuda, decode_inputs_refusal, decode_inputs}};
}

}  // namespace moge::ops::cuda
