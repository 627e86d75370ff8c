#include "engine/session.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/memory_text.h"
#include "model/memory_fit.h"
#include "spec/cost.h"

namespace moge::engine {

namespace {

/// Cache positions in a page. A page is one run of memory for each head, so a long page is a long stream.
constexpr int64_t kPageSize = 64;

int64_t num_pages(const SessionConfig& limits) {
  return (limits.context + kPageSize - 1) / kPageSize;
}

/// The limits that a session has of what was asked for.
SessionConfig checked(SessionConfig limits, const spec::ModelConfig& config) {
  check<UsageError>(limits.context >= 1 && limits.context <= config.max_position_embeddings, "context of ",
                    limits.context, " tokens: expected 1 to the model's max_position_embeddings, ",
                    config.max_position_embeddings);
  check<UsageError>(limits.max_batch_tokens >= 1, "expected at least one token in a forward pass");
  check<UsageError>(limits.kv_dtype == DType::kBF16 || limits.kv_dtype == DType::kF32, "keys and values in ",
                    name_of(limits.kv_dtype), ": expected bf16 or f32");
  limits.max_batch_tokens = std::min(limits.max_batch_tokens, limits.context);
  return limits;
}

}  // namespace

std::array<MemoryPart, 4> Session::MemoryPlan::parts() const {
  return {
      {{"weights", weights}, {"KV cache", kv_cache}, {"activations", activations}, {"workspace", workspace}}};
}

Session::MemoryPlan Session::plan(const spec::ModelConfig& config, DType weights,
                                  const SessionConfig& limits) {
  const SessionConfig valid = checked(limits, config);
  Arena w, cache, buffers;
  model::allocate_weights(w, config, weights);
  allocate_cache(cache, config, valid);
  allocate_buffers(buffers, config, valid);
  return {.weights = w.used_bytes(),
          .kv_cache = cache.used_bytes(),
          .activations = buffers.used_bytes(),
          .workspace = 0};
}

void Session::check_fits(const spec::ModelConfig& config, DType weights, const SessionConfig& limits,
                         int64_t free) {
  const MemoryPlan need = plan(config, weights, limits);
  const auto shorter = [&](int64_t context) {
    SessionConfig fewer = limits;
    fewer.context = context;
    return plan(config, weights, fewer).total();
  };
  const model::Fewer fewer = model::shorter_context(limits.context, shorter);
  model::check_fits({}, need.parts(), free, {&fewer, 1});
}

Session::Session(ExecContext ctx, model::Model model, const SessionConfig& limits)
    : ctx_(ctx),
      limits_(checked(limits, model.config)),
      model_(std::move(model)),
      sampler_(ctx, model_.config.vocab_size) {
  const MemoryPlan need = plan(model_.config, weight_dtype(), limits_);
  model::pack_for_inference(ctx_, model_);
  cache_memory_ = Arena(need.kv_cache, "KV cache");
  cache_ = allocate_cache(cache_memory_, model_.config, limits_);
  buffer_memory_ = Arena(need.activations, "activations");
  buf_ = allocate_buffers(buffer_memory_, model_.config, limits_);
  one_token_ = activations(1);
  // One sequence owns all pages, in order.
  const std::span<int32_t> pages = elements<int32_t>(buf_.block_table);
  std::iota(pages.begin(), pages.end(), 0);
  plan_workspace();
  plan_ = need;
  plan_.workspace = workspace_.planned_bytes();
}

model::KvCache Session::allocate_cache(Arena& arena, const spec::ModelConfig& c,
                                       const SessionConfig& limits) {
  model::KvCache cache;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    for (std::vector<Tensor>* pages : {&cache.k_pages, &cache.v_pages})
      pages->push_back(
          arena.alloc(limits.kv_dtype, {num_pages(limits), c.num_key_value_heads, kPageSize, c.head_dim}));
  }
  return cache;
}

Session::Buffers Session::allocate_buffers(Arena& arena, const spec::ModelConfig& config,
                                           const SessionConfig& limits) {
  const int64_t T = limits.max_batch_tokens;
  const auto i32 = [&](Shape shape) { return arena.alloc(DType::kI32, shape); };
  return {.acts = model::allocate_activations(arena, config, T, model::Keep::kOneLayer),
          .tokens = i32({T}),
          .positions = i32({T}),
          .slots = i32({T}),
          .cu_seqlens = i32({2}),
          .kv_lens = i32({1}),
          .block_table = i32({1, num_pages(limits)}),
          .logits = arena.alloc(DType::kF32, {1, config.vocab_size})};
}

model::Activations Session::activations(int64_t num_tokens) const {
  return model::first_tokens(buf_.acts, model_.config, num_tokens);
}

model::Batch Session::batch(int64_t num_tokens) const {
  return {.tokens = buf_.tokens.slice(0, 0, num_tokens),
          .positions = buf_.positions.slice(0, 0, num_tokens),
          .cu_seqlens = buf_.cu_seqlens,
          .block_table = buf_.block_table,
          .kv_lens = buf_.kv_lens,
          .slots = buf_.slots.slice(0, 0, num_tokens)};
}

void Session::plan_workspace() {
  ExecContext planning = ctx_;
  Workspace counter;
  planning.workspace = &counter;
  planning.planning = true;
  // An op may need most for some length in between (few rows take other paths than many), so every one is
  // asked.
  for (int64_t T = 1; T <= limits_.max_batch_tokens; ++T)
    model::transformer_fwd(planning, model_.config, model_.weights, batch(T), &cache_, activations(T));
  model::head_fwd(planning, model_.weights, one_token_.final, buf_.logits);
  workspace_ = Workspace(counter.planned_bytes());
  workspace_.plan(counter.planned_bytes());
  ctx_.workspace = &workspace_;
}

int64_t Session::decode_read_bytes(int64_t cached_tokens) const {
  return spec::decode_read_bytes(config(), cached_tokens, weight_dtype(), limits_.kv_dtype);
}

void Session::truncate(int64_t num_tokens) {
  dcheck(num_tokens >= 0 && num_tokens <= static_cast<int64_t>(tokens_.size()), "cannot keep ", num_tokens,
         " of ", tokens_.size(), " tokens");
  tokens_.resize(static_cast<size_t>(num_tokens));
}

void Session::append(std::span<const int32_t> tokens, bool /*last*/) {
  const auto T = static_cast<int64_t>(tokens.size());
  const auto past = static_cast<int64_t>(tokens_.size());
  dcheck(T >= 1 && T <= limits_.max_batch_tokens, "a pass of ", T, " tokens: expected 1 to ",
         limits_.max_batch_tokens);
  check<RequestError>(past + T <= limits_.context, "the context is full: it holds ", limits_.context,
                      " tokens, and ", past, " + ", T, " are needed");
  const model::Batch b = batch(T);
  for (int64_t t = 0; t < T; ++t) {
    check<RequestError>(tokens[t] >= 0 && tokens[t] < model_.config.vocab_size, "token ", tokens[t],
                        ": the model knows 0 to ", model_.config.vocab_size - 1);
    b.tokens.ptr<int32_t>()[t] = tokens[t];
    b.positions.ptr<int32_t>()[t] = static_cast<int32_t>(past + t);
    // Page i of the sequence is page i of the cache, so a position is its own slot.
    b.slots.ptr<int32_t>()[t] = static_cast<int32_t>(past + t);
  }
  buf_.cu_seqlens.ptr<int32_t>()[1] = static_cast<int32_t>(T);
  *buf_.kv_lens.ptr<int32_t>() = static_cast<int32_t>(past + T);
  if (T == 1)
    model::transformer_fwd(ctx_, model_.config, model_.weights, b, &cache_, one_token_);
  else
    model::transformer_fwd(ctx_, model_.config, model_.weights, b, &cache_, activations(T));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  last_row_ = T - 1;
}

Tensor Session::logits() {
  dcheck(!tokens_.empty(), "no token was appended");
  model::head_fwd(ctx_, model_.weights, buf_.acts.final.slice(0, last_row_, last_row_ + 1), buf_.logits);
  return buf_.logits[0];
}

}  // namespace moge::engine
