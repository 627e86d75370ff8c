// MulAttention: attention of a few query rows per sequence over a paged cache, bound by the bytes of the
// cache. Log of predictions and outcomes: docs/kernels/log/mul_attention.md.
//
// The arithmetic does not depend on the batch. Keys are cut in chunks of 256 positions; a chunk gives, for
// every query row, the maximum m of its scores, the sum l of exp(score - m) and the weighted values o. Chunks
// merge in increasing order into spans of 1024 positions, spans in increasing order into the row's result.
// How the work is shared changes none of that: with enough sequences a block takes two spans, the last
// sequences by single ones, and with few sequences it takes single chunks. What a block cannot finish alone
// it leaves in the workspace, and the last to come merges it.
//
// The lengths, the block table and what was cached before this step are read while the kernels before this
// one (rope_kv_write, and what it waits for) may still run: launch.cuh says why they are there.
#pragma once
#include "ops/attention.h"

namespace moge::ops::cuda {

Refusal mul_attention_refusal(const PagedAttention& args);
int64_t mul_attention_workspace(const ExecContext& ctx, const PagedAttention& args);
void mul_attention(ExecContext& ctx, const PagedAttention& args, std::span<std::byte> workspace);

}  // namespace moge::ops::cuda
