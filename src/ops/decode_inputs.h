// Between two decode steps: the drawn token becomes the next input, and what else the step reads is derived
// on the device from the sequences' lengths, so that steps follow each other without the host. Bound by
// latency.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// kv_lens[b] += 1; positions[b] = kv_lens[b] - 1; slots[b] = block_table[b, position / PS] * PS + position %
/// PS; steps[b] += 1; output_counts[b, tokens[b]] += 1. A sequence of length below 0 is idle: nothing of it
/// changes, its position is 0 and its slot -1, which writes no keys (ops/rope_kv_write.h).
struct DecodeInputs {
  Tensor kv_lens;        // [B] i32, in place: this step's token included
  Tensor positions;      // [B] i32
  Tensor slots;          // [B] i32
  Tensor steps;          // [B] i64, in place: numbers of draws (ops/sampling.h), optional
  Tensor output_counts;  // [B, V] i32, in place, optional
  Tensor tokens;         // [B] i32: the last drawn tokens, with output_counts
  Tensor block_table;    // [B, MP] i32
  int page_size = 0;     ///< PS
};

void decode_inputs(ExecContext& ctx, const DecodeInputs& args);
OpTable<DecodeInputs>& decode_inputs_table();

}  // namespace moge::ops
