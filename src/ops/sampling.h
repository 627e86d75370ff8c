// The next token of each request, from its logits. The order is that of transformers and vLLM: penalties
// (repetition, frequency, presence), temperature, top-k, top-p, min-p, then one draw. The draw is
// Philox(seed, step): it depends on the request alone, never on the batch. Bound by bandwidth.
//
// Tokens are ranked by falling logit, ties by rising index, and every filter keeps a prefix of that ranking:
// top-k its first k; top-p the shortest prefix of those with at least that share of their probability; min-p
// the tokens with at least that share of the largest probability. The first token is always kept. The draw
// walks the kept tokens by rising index to the first whose cumulative probability exceeds u in [0, 1).
//
// A value without a meaning switches its parameter off: temperature not above 0 or NaN is greedy; top-k below
// 1; top-p of 1 and more, or NaN (0 and less keeps one token); min-p not above 0 or NaN; a penalty that is
// NaN or, for repetition, not above 0. A NaN logit counts as -inf. With a logit of +inf, or none above -inf,
// the draw is greedy.
#pragma once
#include "core/dispatch.h"

namespace moge::ops {

/// All parameters are per request, so that one call serves a mixed batch.
struct Sampling {
  Tensor tokens;              // [B] i32
  Tensor logprobs;            // [B] f32, optional: log-probability of the token under softmax(raw logits)
  Tensor logits;              // [B, V] f32
  Tensor temperature;         // [B] f32; 0 = greedy, ties to the lowest index
  Tensor top_k;               // [B] i32; 0 = off
  Tensor top_p;               // [B] f32; 1 = off
  Tensor min_p;               // [B] f32; 0 = off
  Tensor repetition_penalty;  // [B] f32; 1 = off; applies to tokens seen in prompt or output
  Tensor presence_penalty;    // [B] f32; 0 = off; applies to tokens of the output
  Tensor frequency_penalty;   // [B] f32; 0 = off
  Tensor output_counts;       // [B, V] i32, optional: how often each token was generated
  Tensor prompt_mask;         // [B, V] u8, optional: 1 where the prompt has the token
  Tensor seeds;               // [B] i64
  Tensor steps;               // [B] i64: the draw's number
};

void sampling(ExecContext& ctx, const Sampling& args);
OpTable<Sampling>& sampling_table();

}  // namespace moge::ops
