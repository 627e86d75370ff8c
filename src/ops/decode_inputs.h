// What a decode step reads besides its tokens, derived on the device from the sequences' lengths, so that
// steps follow each other without the host. Bound by latency.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// kv_lens[b] += 1; positions[b] = kv_lens[b] - 1; slots[b] = block_table[b, position / PS] * PS + position %
/// PS. A sequence of length below 0 is idle: it stays so, at position 0, and writes to the scratch page
/// P - 1, slot 0.
struct DecodeInputs {
  Tensor kv_lens;      // [B] i32, in place: this step's token included
  Tensor positions;    // [B] i32
  Tensor slots;        // [B] i32
  Tensor block_table;  // [B, MP] i32
  int page_size = 0;   ///< PS
  int num_pages = 0;   ///< P
};

void decode_inputs(ExecContext& ctx, const DecodeInputs& args);
OpTable<DecodeInputs>& decode_inputs_table();

}  // namespace moge::ops
