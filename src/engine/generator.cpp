#include "engine/generator.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"

namespace moge::engine {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double per_second(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

}  // namespace

const char* name_of(Finish finish) {
  switch (finish) {
    case Finish::kStopId:
      return "end of text";
    case Finish::kStopped:
      return "stop string";
    case Finish::kMaxTokens:
      return "max tokens";
    case Finish::kContextFull:
      return "context full";
    case Finish::kInterrupted:
      return "interrupted";
  }
  return "?";
}

double Generation::prefill_tokens_per_second() const {
  return per_second(prompt_tokens - cached_tokens, prefill_seconds);
}

double Generation::decode_tokens_per_second() const {
  return per_second(decode_steps, decode_seconds);
}

double Generation::decode_bytes_per_second() const {
  return per_second(decode_bytes, decode_seconds);
}

bool Generator::prefill(std::span<const int32_t> prompt, const SamplingParams& sampling, Generation& result,
                        const std::atomic<bool>& interrupt) {
  const int64_t context = sequence_->context();
  check<RequestError>(!prompt.empty(), "the prompt has no tokens");
  check<RequestError>(static_cast<int64_t>(prompt.size()) <= context, "the prompt has ", prompt.size(),
                      " tokens; the context holds ", context);
  const int64_t vocab_size = sequence_->config().vocab_size;
  for (const int32_t token : prompt)
    check<RequestError>(token >= 0 && token < vocab_size, "token ", token, ": the model knows 0 to ",
                        vocab_size - 1);
  const auto start = Clock::now();
  const std::vector<int32_t>& past = sequence_->tokens();
  const auto shared = std::ranges::mismatch(prompt, past).in1 - prompt.begin();
  // The last token is always computed: its logits are not kept.
  result.cached_tokens = std::min<int64_t>(shared, std::ssize(prompt) - 1);
  result.prompt_tokens = std::ssize(prompt);
  sequence_->truncate(result.cached_tokens);
  sequence_->start_sampling(sampling, prompt);
  std::span<const int32_t> rest = prompt.subspan(static_cast<size_t>(result.cached_tokens));
  while (!rest.empty() && !interrupt) {
    const auto n = std::min(rest.size(), static_cast<size_t>(sequence_->max_batch_tokens()));
    sequence_->append(rest.first(n), n == rest.size());
    rest = rest.subspan(n);
  }
  result.prefill_seconds = seconds_since(start);
  return rest.empty();
}

Generation Generator::generate(std::span<const int32_t> prompt, const GenerationParams& params,
                               const std::function<bool(int32_t)>& on_token,
                               const std::atomic<bool>& interrupt) {
  check<RequestError>(params.max_tokens >= 1, "max_tokens: expected at least 1, got ", params.max_tokens);
  Generation result;
  if (!prefill(prompt, params.sampling, result, interrupt)) {
    result.finish = Finish::kInterrupted;
    return result;
  }
  const auto start = Clock::now();
  while (true) {
    const int32_t token = sequence_->draw();
    result.tokens.push_back(token);
    const bool go_on = on_token(token);
    const std::optional<Finish> finish = finish_after(result, params, go_on, interrupt);
    if (finish) {
      result.finish = *finish;
      result.decode_seconds = seconds_since(start);
      return result;
    }
    sequence_->append({&token, 1}, true);
    ++result.decode_steps;
    result.decode_bytes += sequence_->decode_read_bytes(std::ssize(sequence_->tokens()));
  }
}

std::optional<Finish> Generator::finish_after(const Generation& result, const GenerationParams& params,
                                              bool go_on, const std::atomic<bool>& interrupt) const {
  if (std::ranges::count(params.stop_ids, result.tokens.back()) > 0) return Finish::kStopId;
  if (!go_on) return Finish::kStopped;
  if (std::ssize(result.tokens) >= params.max_tokens) return Finish::kMaxTokens;
  if (std::ssize(sequence_->tokens()) >= sequence_->context()) return Finish::kContextFull;
  if (interrupt) return Finish::kInterrupted;
  return std::nullopt;
}

}  // namespace moge::engine
