// Text generation for one user: prompt in, tokens out one by one, until something says stop.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/sequence.h"

namespace moge::engine {

struct GenerationParams {
  SamplingParams sampling;
  int64_t max_tokens = 256;
  std::vector<int32_t> stop_ids;  ///< end the generation; they belong to its tokens
};

enum class Finish {
  kStopId,       ///< one of stop_ids came
  kStopped,      ///< on_token said so
  kMaxTokens,    ///< max_tokens were generated
  kContextFull,  ///< no room for another token
  kInterrupted,  ///< the flag was raised
};
const char* name_of(Finish finish);

struct Generation {
  std::vector<int32_t> tokens;
  Finish finish = Finish::kMaxTokens;

  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  ///< of the prompt, known from the sequence before
  double prefill_seconds = 0;
  int64_t decode_steps = 0;  ///< forward passes of one token: the first token comes from the prefill
  double decode_seconds = 0;
  int64_t decode_bytes = 0;  ///< spec::decode_read_bytes of all steps

  double prefill_tokens_per_second() const;  ///< 0 without any
  double decode_tokens_per_second() const;
  double decode_bytes_per_second() const;
};

class Generator {
 public:
  explicit Generator(std::unique_ptr<Sequence> sequence) : sequence_(std::move(sequence)) {}

  /// Continues `prompt`. What it shares with the sequence in the cache is not computed again, so a chat may
  /// pass the whole conversation every time. `on_token` sees each token as it comes and returns whether to go
  /// on. `interrupt` is looked at between forward passes. RequestError: an empty prompt, one that the context
  /// cannot hold, an unknown token.
  Generation generate(std::span<const int32_t> prompt, const GenerationParams& params,
                      const std::function<bool(int32_t token)>& on_token, const std::atomic<bool>& interrupt);

  Sequence& sequence() { return *sequence_; }

 private:
  /// False when interrupted.
  bool prefill(std::span<const int32_t> prompt, const SamplingParams& sampling, Generation& result,
               const std::atomic<bool>& interrupt);
  /// Why the generation ends with its last token, if it does.
  std::optional<Finish> finish_after(const Generation& result, const GenerationParams& params, bool go_on,
                                     const std::atomic<bool>& interrupt) const;

  std::unique_ptr<Sequence> sequence_;
};

}  // namespace moge::engine
