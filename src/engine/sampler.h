// Draws the tokens of one sequence from its logits (ops/sampling.h says how).
#pragma once
#include <span>

#include "core/exec_context.h"

namespace moge::engine {

/// The names are those of Hugging Face's generation_config.json.
struct SamplingParams {
  double temperature = 1;  ///< 0: greedy
  int64_t top_k = 0;       ///< 0: off
  double top_p = 1;        ///< 1: off
  double min_p = 0;        ///< 0: off
  double repetition_penalty = 1;
  double presence_penalty = 0;   ///< 0: off. This and the next are OpenAI's: for tokens of the answer alone
  double frequency_penalty = 0;  ///< 0: off
  uint64_t seed = 0;
};

class Sampler {
 public:
  Sampler(ExecContext ctx, int64_t vocab_size);

  /// Begins a sequence: its draws are numbered from 0, its penalties know the prompt.
  void start(const SamplingParams& params, std::span<const int32_t> prompt);
  /// The next token from logits [V].
  int32_t sample(const Tensor& logits);

 private:
  struct Row {  // ops::Sampling's tensors for a batch of one
    Tensor token, temperature, top_k, top_p, min_p, repetition, presence, frequency, counts, prompt, seed,
        step;
  };
  Row allocate(Arena& arena) const;
  void run(const Tensor& logits);

  ExecContext ctx_;
  int64_t vocab_size_;
  Arena memory_;
  Row row_;
  Workspace workspace_;
};

}  // namespace moge::engine
