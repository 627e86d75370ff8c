#include "engine/sampler.h"

#include <algorithm>
#include <limits>

#include "ops/sampling.h"

namespace moge::engine {

namespace {

template <class T>
void set(const Tensor& t, T value) {
  *t.ptr<T>() = value;
}

}  // namespace

Sampler::Sampler(ExecContext ctx, int64_t vocab_size) : ctx_(ctx), vocab_size_(vocab_size) {
  Arena plan;
  allocate(plan);
  memory_ = Arena(plan.used_bytes(), "sampler");
  row_ = allocate(memory_);
  ctx_.workspace = &workspace_;
  ctx_.planning = true;
  run({nullptr, DType::kF32, {vocab_size}});
  workspace_ = Workspace(workspace_.planned_bytes());
  ctx_.planning = false;
}

Sampler::Row Sampler::allocate(Arena& arena) const {
  const auto one = [&](DType dtype) { return arena.alloc(dtype, {1}); };
  return {.token = one(DType::kI32),
          .temperature = one(DType::kF32),
          .top_k = one(DType::kI32),
          .top_p = one(DType::kF32),
          .min_p = one(DType::kF32),
          .repetition = one(DType::kF32),
          .presence = one(DType::kF32),
          .frequency = one(DType::kF32),
          .counts = arena.alloc(DType::kI32, {1, vocab_size_}),
          .prompt = arena.alloc(DType::kU8, {1, vocab_size_}),
          .seed = one(DType::kI64),
          .step = one(DType::kI64)};
}

void Sampler::start(const SamplingParams& p, std::span<const int32_t> prompt) {
  set(row_.temperature, static_cast<float>(p.temperature));
  set(row_.top_k, static_cast<int32_t>(std::clamp<int64_t>(p.top_k, 0, std::numeric_limits<int32_t>::max())));
  set(row_.top_p, static_cast<float>(p.top_p));
  set(row_.min_p, static_cast<float>(p.min_p));
  set(row_.repetition, static_cast<float>(p.repetition_penalty));
  set(row_.presence, static_cast<float>(p.presence_penalty));
  set(row_.frequency, static_cast<float>(p.frequency_penalty));
  set(row_.seed, static_cast<int64_t>(p.seed));
  set(row_.step, int64_t{0});
  std::ranges::fill(elements<int32_t>(row_.counts), 0);
  std::ranges::fill(elements<uint8_t>(row_.prompt), uint8_t{0});
  for (const int32_t id : prompt) row_.prompt.ptr<uint8_t>()[id] = 1;
}

void Sampler::run(const Tensor& logits) {
  ops::sampling(ctx_, {.tokens = row_.token,
                       .logits = logits.view({1, vocab_size_}),
                       .temperature = row_.temperature,
                       .top_k = row_.top_k,
                       .top_p = row_.top_p,
                       .min_p = row_.min_p,
                       .repetition_penalty = row_.repetition,
                       .presence_penalty = row_.presence,
                       .frequency_penalty = row_.frequency,
                       .output_counts = row_.counts,
                       .prompt_mask = row_.prompt,
                       .seeds = row_.seed,
                       .steps = row_.step});
}

int32_t Sampler::sample(const Tensor& logits) {
  run(logits);
  const int32_t token = *row_.token.ptr<int32_t>();
  ++row_.counts.ptr<int32_t>()[token];
  ++*row_.step.ptr<int64_t>();
  return token;
}

}  // namespace moge::engine
