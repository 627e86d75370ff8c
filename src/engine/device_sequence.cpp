#include "engine/device_sequence.h"

#include "spec/cost.h"

namespace moge::engine {

DeviceSequence::DeviceSequence(ExecContext ctx, model::ServingModel model, const RunnerConfig& limits,
                               std::optional<RunnerPlan> plan)
    : runner_(ctx, std::move(model), limits, plan) {
  runner_.start(0, runner_.limits().context, {.temperature = 0});
}

int64_t DeviceSequence::decode_read_bytes(int64_t cached_tokens) const {
  return static_cast<int64_t>(spec::decode_step_bytes(
      config(), 1, cached_tokens, {.weights = runner_.weight_dtype(), .kv = runner_.limits().kv_dtype}));
}

void DeviceSequence::truncate(int64_t num_tokens) {
  tokens_.resize(static_cast<size_t>(num_tokens));
  runner_.truncate(0, num_tokens);
  drawn_ = -1;
}

void DeviceSequence::start_sampling(const SamplingParams& params, std::span<const int32_t> prompt) {
  runner_.set_sampling(0, params, prompt);
}

void DeviceSequence::append(std::span<const int32_t> tokens, bool last) {
  // A step of decoding takes its token from where it was drawn.
  if (tokens.size() == 1 && last && tokens[0] == drawn_)
    runner_.decode();
  else
    runner_.prefill(0, {&tokens, 1}, last);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  drawn_ = -1;
}

int32_t DeviceSequence::draw() {
  return drawn_ = runner_.tokens(1)[0];
}

}  // namespace moge::engine
