// One growing text on some device: what generation for one user stands on. A Session is one on the CPU in the
// numbers of training, a DeviceSequence one on a GPU, or on the CPU in eight bits.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "spec/model_config.h"

namespace moge::engine {

class Sequence {
 public:
  virtual ~Sequence() = default;
  virtual const spec::ModelConfig& config() const = 0;
  virtual int64_t context() const = 0;           ///< tokens that fit
  virtual int64_t max_batch_tokens() const = 0;  ///< of one append()
  virtual std::string memory_plan_text() const = 0;
  virtual int64_t memory_bytes() const = 0;
  /// What a pass of one token has to read with `cached_tokens` in the cache, its own included.
  virtual int64_t decode_read_bytes(int64_t cached_tokens) const = 0;

  /// Tokens whose keys and values are cached.
  virtual const std::vector<int32_t>& tokens() const = 0;
  /// Forgets all but the first `num_tokens`.
  virtual void truncate(int64_t num_tokens) = 0;
  /// Begins a generation: draws are numbered from 0, penalties know the prompt.
  virtual void start_sampling(const SamplingParams& params, std::span<const int32_t> prompt) = 0;
  /// Appends 1 to max_batch_tokens tokens: one forward pass. With `last` draw() follows. RequestError when
  /// the context is full or a token is unknown.
  virtual void append(std::span<const int32_t> tokens, bool last) = 0;
  /// The next token; it is not appended.
  virtual int32_t draw() = 0;
};

}  // namespace moge::engine
