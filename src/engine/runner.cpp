#include "engine/runner.h"

#include <algorithm>
#include <numeric>

#include "core/transfer.h"
#include "ops/decode_inputs.h"
#include "ops/random_fill.h"
#include "ops/sampling.h"

namespace moge::engine {

namespace {

/// Cache positions in a page: one page of one head is one contiguous block for the attention kernel to
/// stream.
constexpr int64_t kPageSize = 64;

int64_t pages_for(int64_t tokens) {
  return (tokens + kPageSize - 1) / kPageSize;
}

int64_t num_pages(const RunnerConfig& limits) {
  return limits.kv_tokens > 0 ? pages_for(limits.kv_tokens)
                              : limits.max_sequences * pages_for(limits.context);
}

/// Graphs for every number of rows would be many; a few idle rows cost little once there are many.
int64_t rows_of_graph(int64_t num_rows, const RunnerConfig& limits) {
  return std::min(num_rows <= 16 ? num_rows : (num_rows + 7) / 8 * 8, limits.max_sequences);
}
/// More are forgotten, and recorded anew when they are wanted again.
constexpr size_t kMostGraphs = 24;

/// What a device takes beyond what we ask it for: each of four blocks rounded up to 2 MiB, and a graph's
/// nodes (H200, 48 layers: 23 to 45 KB for a layer of one graph, as tests/gpu measures).
int64_t graph_bytes(const ExecContext& ctx, const spec::ModelConfig& c, const RunnerConfig& limits) {
  constexpr int64_t kBlocks = 4 * (int64_t{2} << 20), kLayer = int64_t{48} << 10;
  if (!ctx.backend) return 0;
  if (!limits.graphs) return kBlocks;
  const int64_t few = std::min<int64_t>(limits.max_sequences, 16);
  const int64_t most = few + (limits.max_sequences - few + 7) / 8;
  return kBlocks + std::min<int64_t>(most, kMostGraphs) * c.num_hidden_layers * kLayer;
}

int64_t pass_tokens(const RunnerConfig& limits) {
  return std::max(limits.max_batch_tokens, limits.max_sequences);
}

void check_limits(const RunnerConfig& l, const spec::ModelConfig& c) {
  check<UsageError>(l.context >= 1 && l.context <= c.max_position_embeddings, "context of ", l.context,
                    " tokens: expected 1 to the model's max_position_embeddings, ",
                    c.max_position_embeddings);
  check<UsageError>(l.max_sequences >= 1, "expected room for at least one sequence, got ", l.max_sequences);
  check<UsageError>(l.max_batch_tokens >= 1, "expected at least one token in a prefill pass, got ",
                    l.max_batch_tokens);
  check<UsageError>(num_pages(l) <= INT32_MAX / kPageSize, "a cache of ", num_pages(l), " pages of ",
                    kPageSize, " tokens: expected fewer than 2^31 tokens in all");
  model::check_kv_dtype(l.kv_dtype);
}

template <class T>
void upload_vector(ExecContext& ctx, const Tensor& to, const std::vector<T>& host) {
  const Tensor rows = to.slice(0, 0, static_cast<int64_t>(host.size()));
  upload(ctx, rows, host.data());
}
template <class T>
void upload_element(ExecContext& ctx, const Tensor& to, int64_t i, T value) {
  upload(ctx, to.slice(0, i, i + 1), &value);
}

}  // namespace

std::array<MemoryPart, 7> RunnerPlan::parts() const {
  return {{{"weights", weights},
           {"KV cache", kv_cache},
           {"activations", activations},
           {"logits", logits},
           {"inputs", inputs},
           {"workspace", workspace},
           {"graphs", graphs}}};
}

std::string RunnerPlan::str() const {
  return moge::str(memory_text(parts()), ", total ", memory_text(total()));
}

model::KvCache Runner::allocate_cache(Arena& arena, const spec::ModelConfig& c, const RunnerConfig& limits) {
  const int64_t P = num_pages(limits), KV = c.num_key_value_heads;
  model::KvCache cache;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    for (std::vector<Tensor>* pages : {&cache.k_pages, &cache.v_pages})
      pages->push_back(arena.alloc(limits.kv_dtype, {P, KV, kPageSize, c.head_dim}));
    if (size_of(limits.kv_dtype) == 2) continue;
    for (std::vector<Tensor>* scales : {&cache.k_scales, &cache.v_scales})
      scales->push_back(arena.alloc(DType::kF32, {P, KV, kPageSize}));
  }
  return cache;
}

Runner::Buffers Runner::allocate_buffers(Arena& arena, const spec::ModelConfig& c, DType weights,
                                         const RunnerConfig& limits, RunnerPlan* plan) {
  const int64_t B = limits.max_sequences, T = pass_tokens(limits);
  const auto f32 = [&](Shape shape) { return arena.alloc(DType::kF32, shape); };
  const auto i32 = [&](Shape shape) { return arena.alloc(DType::kI32, shape); };
  const auto i64 = [&](Shape shape) { return arena.alloc(DType::kI64, shape); };
  Buffers b;
  b.acts = model::allocate_serving_activations(arena, c, weights, T);
  const int64_t acts_end = arena.used_bytes();
  b.logits = f32({B, c.vocab_size});
  const int64_t logits_end = arena.used_bytes();
  for (Tensor* t : {&b.tokens, &b.kv_lens, &b.positions, &b.slots, &b.top_k, &b.p_kv_lens, &b.p_last})
    *t = i32({B});
  for (Tensor* t : {&b.temperature, &b.top_p, &b.min_p, &b.repetition, &b.presence, &b.frequency})
    *t = f32({B});
  b.steps = i64({B});
  b.seeds = i64({B});
  b.block_table = i32({B, pages_for(limits.context)});
  if (limits.penalties) {
    b.output_counts = i32({B, c.vocab_size});
    b.prompt_mask = arena.alloc(DType::kU8, {B, c.vocab_size});
  }
  for (Tensor* t : {&b.decode_cu_q, &b.p_cu_q}) *t = i32({B + 1});
  for (Tensor* t : {&b.p_tokens, &b.p_positions, &b.p_slots}) *t = i32({T});
  if (plan) {
    plan->activations = acts_end;
    plan->logits = logits_end - acts_end;
    plan->inputs = arena.used_bytes() - logits_end;
  }
  return b;
}

int64_t Runner::plan_workspace(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                               const RunnerConfig& limits) {
  // Layers are alike, so one stands for all; an op may need most for some number of rows in between, so every
  // one is asked.
  spec::ModelConfig c = config;
  c.num_hidden_layers = 1;
  Arena counting;
  const model::ServingWeights w = model::allocate_serving_weights(counting, c, weights);
  const model::KvCache cache = allocate_cache(counting, c, limits);
  Runner dry;  // the passes' own code, over tensors without memory
  dry.limits_ = limits;
  dry.model_ = {c, weights, {}, w};
  dry.cache_ = cache;
  dry.buf_ = allocate_buffers(counting, c, weights, limits, nullptr);
  // Some 15 us a pass, of which a large prefill has a million sizes: on all threads.
  constexpr int64_t kPassesPerTask = 64;
  std::vector<Workspace> counters(static_cast<size_t>(ctx.pool->num_threads()));
  const auto for_sizes = [&](int64_t most, const auto& pass) {
    ctx.pool->run((most + kPassesPerTask - 1) / kPassesPerTask, [&](int64_t task, int thread) {
      ExecContext planning = ctx;
      planning.workspace = &counters[static_cast<size_t>(thread)];
      planning.planning = true;
      const int64_t end = std::min(most, (task + 1) * kPassesPerTask);
      for (int64_t size = task * kPassesPerTask + 1; size <= end; ++size) pass(planning, size);
    });
  };
  for_sizes(limits.max_sequences, [&](ExecContext& planning, int64_t B) { dry.decode_step(planning, B); });
  for_sizes(limits.max_batch_tokens, [&](ExecContext& planning, int64_t T) {
    dry.prefill_pass(planning, 0, std::min(T, limits.max_sequences), T);
  });
  return std::ranges::max_element(counters, {}, &Workspace::planned_bytes)->planned_bytes();
}

RunnerPlan Runner::plan_tensors(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                                const RunnerConfig& limits) {
  check_limits(limits, config);
  RunnerPlan plan;
  Arena w, cache, buffers;
  model::allocate_serving_weights(w, config, weights);
  allocate_cache(cache, config, limits);
  allocate_buffers(buffers, config, weights, limits, &plan);
  plan.weights = w.used_bytes();
  plan.kv_cache = cache.used_bytes();
  plan.graphs = graph_bytes(ctx, config, limits);
  return plan;
}

RunnerPlan Runner::plan(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                        const RunnerConfig& limits) {
  RunnerPlan plan = plan_tensors(ctx, config, weights, limits);
  plan.workspace = plan_workspace(ctx, config, weights, limits);
  return plan;
}

RunnerPlan Runner::plan_that_fits(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                                  const RunnerConfig& limits, int64_t free, Offer offer) {
  RunnerPlan need = plan_tensors(ctx, config, weights, limits);
  std::optional<int64_t> workspace;  // of `limits`: layers take turns, so their number does not matter
  const auto workspace_of_limits = [&] {
    if (!workspace) workspace = plan_workspace(ctx, config, weights, limits);
    return *workspace;
  };
  if (need.total() <= free) need.workspace = workspace_of_limits();
  // A pass has at most all tokens of all sequences.
  const auto smaller = [&](int64_t sequences, int64_t context) {
    RunnerConfig fewer = limits;
    fewer.max_sequences = sequences;
    fewer.context = context;
    fewer.max_batch_tokens = std::min(limits.max_batch_tokens, sequences * context);
    fewer.kv_tokens = 0;
    const int64_t tensors = plan_tensors(ctx, config, weights, fewer).total();
    return tensors > free ? tensors : tensors + plan_workspace(ctx, config, weights, fewer);
  };
  std::vector<model::Fewer> fewer = {
      {.most = limits.max_sequences - 1,
       .total = [&](int64_t n) { return smaller(n, limits.context); },
       .text = [&](int64_t n) { return moge::str(n, " sequences of ", limits.context, " tokens"); }},
      model::shorter_context(limits.context, [&](int64_t n) { return smaller(1, n); })};
  if (offer == Offer::kLayersToo)
    fewer.push_back(model::fewer_layers(config, [&](const spec::ModelConfig& shallow) {
      const int64_t tensors = plan_tensors(ctx, shallow, weights, limits).total();
      return tensors > free ? tensors : tensors + workspace_of_limits();
    }));
  model::check_fits(ctx, need.parts(), free, fewer);
  return need;
}

Runner::Runner(ExecContext ctx, model::ServingModel model, const RunnerConfig& limits,
               std::optional<RunnerPlan> plan)
    : ctx_(ctx), limits_(limits), model_(std::move(model)) {
  plan_ = plan ? *plan : Runner::plan(ctx_, model_.config, model_.dtype, limits_);
  cache_memory_ = Arena(plan_.kv_cache, "KV cache", ctx_.backend);
  cache_ = allocate_cache(cache_memory_, model_.config, limits_);
  buffer_memory_ =
      Arena(plan_.activations + plan_.logits + plan_.inputs, "activations and inputs", ctx_.backend);
  buf_ = allocate_buffers(buffer_memory_, model_.config, model_.dtype, limits_, nullptr);
  workspace_ = Workspace(plan_.workspace, ctx_.backend);
  ctx_.workspace = &workspace_;

  // Attention copies the scales of whole pages, those of positions that nobody has written among them.
  if (ctx_.backend)
    for (const std::vector<Tensor>* scales : {&cache_.k_scales, &cache_.v_scales})
      for (const Tensor& t : *scales) ctx_.backend->fill_bytes(t.data, 0, t.bytes());

  const int64_t B = limits_.max_sequences;
  rows_.resize(static_cast<size_t>(B));
  free_pages_.resize(static_cast<size_t>(num_pages(limits_)));
  std::iota(free_pages_.rbegin(), free_pages_.rend(), 0);
  std::vector<int32_t> cu_q(static_cast<size_t>(B) + 1);
  std::iota(cu_q.begin(), cu_q.end(), 0);
  upload_vector(ctx_, buf_.decode_cu_q, cu_q);
  upload_vector(ctx_, buf_.kv_lens, std::vector<int32_t>(static_cast<size_t>(B), -1));
  upload_vector(ctx_, buf_.tokens, std::vector<int32_t>(static_cast<size_t>(B), 0));
  for (int64_t row = 0; row < B; ++row) upload_row(row, {.temperature = 0});
  synchronize(ctx_, "runner: setting up");
}

void Runner::upload_row(int64_t row, const SamplingParams& p) {
  const Row& r = rows_[static_cast<size_t>(row)];
  upload_element(ctx_, buf_.temperature, row, static_cast<float>(p.temperature));
  upload_element(ctx_, buf_.top_k, row, static_cast<int32_t>(std::clamp<int64_t>(p.top_k, 0, INT32_MAX)));
  upload_element(ctx_, buf_.top_p, row, static_cast<float>(p.top_p));
  upload_element(ctx_, buf_.min_p, row, static_cast<float>(p.min_p));
  upload_element(ctx_, buf_.repetition, row, static_cast<float>(p.repetition_penalty));
  upload_element(ctx_, buf_.presence, row, static_cast<float>(p.presence_penalty));
  upload_element(ctx_, buf_.frequency, row, static_cast<float>(p.frequency_penalty));
  upload_element(ctx_, buf_.seeds, row, static_cast<int64_t>(p.seed));
  upload_element(ctx_, buf_.steps, row, int64_t{0});
  std::vector<int32_t> pages = r.pages;
  pages.resize(static_cast<size_t>(buf_.block_table.dim(1)));
  upload(ctx_, buf_.block_table[row], pages.data());
  synchronize(ctx_, "runner: a row's inputs");
}

void Runner::start(int64_t row, int64_t max_tokens, const SamplingParams& sampling) {
  Row& r = rows_.at(static_cast<size_t>(row));
  dcheck(!r.active(), "row ", row, " has a sequence already");
  check<RequestError>(max_tokens >= 1 && max_tokens <= limits_.context, "a sequence of ", max_tokens,
                      " tokens: the context holds ", limits_.context);
  const auto pages = static_cast<size_t>(pages_for(max_tokens));
  check<RequestError>(pages <= free_pages_.size(), "a sequence of ", max_tokens, " tokens needs ", pages,
                      " pages of the KV cache, ", free_pages_.size(), " are free");
  r = {.length = 0, .max_tokens = max_tokens, .pages = {}};
  r.pages.assign(free_pages_.end() - static_cast<int64_t>(pages), free_pages_.end());
  std::ranges::reverse(r.pages);
  free_pages_.resize(free_pages_.size() - pages);
  set_sampling(row, sampling, {});
}

void Runner::set_sampling(int64_t row, const SamplingParams& sampling, std::span<const int32_t> prompt) {
  check<UsageError>(limits_.penalties || (sampling.repetition_penalty == 1 &&
                                          sampling.presence_penalty == 0 && sampling.frequency_penalty == 0),
                    "penalties need a runner with memory for them");
  upload_row(row, sampling);
  if (!limits_.penalties) return;
  const std::vector<int32_t> counts(static_cast<size_t>(config().vocab_size));
  std::vector<uint8_t> seen(static_cast<size_t>(config().vocab_size));
  for (const int32_t token : prompt) seen.at(static_cast<size_t>(token)) = 1;
  upload(ctx_, buf_.output_counts[row], counts.data());
  upload(ctx_, buf_.prompt_mask[row], seen.data());
  synchronize(ctx_, "runner: a row's penalties");
}

void Runner::truncate(int64_t row, int64_t num_tokens) {
  Row& r = rows_.at(static_cast<size_t>(row));
  dcheck(num_tokens >= 0 && num_tokens <= r.length, "cannot keep ", num_tokens, " of ", r.length, " tokens");
  r.length = num_tokens;
  r.decoding = false;
  upload_element(ctx_, buf_.kv_lens, row, int32_t{-1});
  synchronize(ctx_, "runner: truncating a row");
}

void Runner::stop(int64_t row) {
  Row& r = rows_.at(static_cast<size_t>(row));
  free_pages_.insert(free_pages_.end(), r.pages.rbegin(), r.pages.rend());
  r = {};
  upload_element(ctx_, buf_.kv_lens, row, int32_t{-1});
  synchronize(ctx_, "runner: stopping a row");
}

void Runner::sample(ExecContext& ctx, int64_t first_row, int64_t num_rows) const {
  const auto rows = [&](const Tensor& t) { return t ? t.slice(0, first_row, first_row + num_rows) : t; };
  ops::sampling(ctx, {.tokens = rows(buf_.tokens),
                      .logits = buf_.logits.slice(0, 0, num_rows),
                      .temperature = rows(buf_.temperature),
                      .top_k = rows(buf_.top_k),
                      .top_p = rows(buf_.top_p),
                      .min_p = rows(buf_.min_p),
                      .repetition_penalty = rows(buf_.repetition),
                      .presence_penalty = rows(buf_.presence),
                      .frequency_penalty = rows(buf_.frequency),
                      .output_counts = rows(buf_.output_counts),
                      .prompt_mask = rows(buf_.prompt_mask),
                      .seeds = rows(buf_.seeds),
                      .steps = rows(buf_.steps)});
}

void Runner::prefill_pass(ExecContext& ctx, int64_t first_row, int64_t num_rows, int64_t num_tokens) const {
  const auto tokens = [&](const Tensor& t) { return t.slice(0, 0, num_tokens); };
  const model::Batch batch{.tokens = tokens(buf_.p_tokens),
                           .positions = tokens(buf_.p_positions),
                           .cu_seqlens = buf_.p_cu_q.slice(0, 0, num_rows + 1),
                           .block_table = buf_.block_table.slice(0, first_row, first_row + num_rows),
                           .kv_lens = buf_.p_kv_lens.slice(0, 0, num_rows),
                           .slots = tokens(buf_.p_slots)};
  const model::ServingActivations acts = model::first_tokens(buf_.acts, model_.config, num_tokens);
  model::serving_fwd(ctx, model_.config, model_.weights, batch, cache_, 0, acts);
  model::serving_head(ctx, model_.weights, acts.normed, buf_.p_last.slice(0, 0, num_rows),
                      buf_.logits.slice(0, 0, num_rows));
  sample(ctx, first_row, num_rows);
}

void Runner::prefill(int64_t first_row, std::span<const std::span<const int32_t>> pieces, bool last) {
  // All of them before any row changes: a refused pass leaves the sequences as they were.
  int64_t num_tokens = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Row& r = rows_.at(static_cast<size_t>(first_row) + i);
    const auto n = static_cast<int64_t>(pieces[i].size());
    num_tokens += n;
    dcheck(r.active() && n > 0, "prefill of row ", first_row + static_cast<int64_t>(i),
           ": no sequence or no tokens");
    check<RequestError>(r.length + n <= r.max_tokens, "the sequence is full: it was started for ",
                        r.max_tokens, " tokens, and ", r.length, " + ", n, " are needed");
    for (const int32_t token : pieces[i])
      check<RequestError>(token >= 0 && token < config().vocab_size, "token ", token,
                          ": the model knows 0 to ", config().vocab_size - 1);
  }
  dcheck(num_tokens >= 1 && num_tokens <= limits_.max_batch_tokens, "a pass of ", num_tokens,
         " tokens: expected 1 to ", limits_.max_batch_tokens);
  std::vector<int32_t> tokens, positions, slots, cu_q{0}, kv_lens, ends;
  for (size_t i = 0; i < pieces.size(); ++i) {
    Row& r = rows_[static_cast<size_t>(first_row) + i];
    for (const int32_t token : pieces[i]) {
      tokens.push_back(token);
      positions.push_back(static_cast<int32_t>(r.length));
      slots.push_back(r.pages[static_cast<size_t>(r.length / kPageSize)] * static_cast<int32_t>(kPageSize) +
                      static_cast<int32_t>(r.length % kPageSize));
      ++r.length;
    }
    cu_q.push_back(static_cast<int32_t>(tokens.size()));
    kv_lens.push_back(static_cast<int32_t>(r.length));
    r.decoding = last;
    ends.push_back(static_cast<int32_t>(tokens.size()) - 1);
  }
  upload_vector(ctx_, buf_.p_tokens, tokens);
  upload_vector(ctx_, buf_.p_positions, positions);
  upload_vector(ctx_, buf_.p_slots, slots);
  upload_vector(ctx_, buf_.p_cu_q, cu_q);
  upload_vector(ctx_, buf_.p_kv_lens, kv_lens);
  upload_vector(ctx_, buf_.p_last, ends);
  const auto num_rows = static_cast<int64_t>(pieces.size());
  // Until the prompt is complete the row is idle to decode steps.
  if (last) upload(ctx_, buf_.kv_lens.slice(0, first_row, first_row + num_rows), kv_lens.data());
  synchronize(ctx_, "runner: a prefill's inputs");  // they are this function's own memory
  prefill_pass(ctx_, first_row, num_rows, num_tokens);
}

void Runner::decode_step(ExecContext& ctx, int64_t num_rows) const {
  const auto rows = [&](const Tensor& t) { return t ? t.slice(0, 0, num_rows) : t; };
  ops::decode_inputs(ctx, {.kv_lens = rows(buf_.kv_lens),
                           .positions = rows(buf_.positions),
                           .slots = rows(buf_.slots),
                           .steps = rows(buf_.steps),
                           .output_counts = rows(buf_.output_counts),
                           .tokens = rows(buf_.tokens),
                           .block_table = rows(buf_.block_table),
                           .page_size = static_cast<int>(kPageSize)});
  const model::Batch batch{.tokens = rows(buf_.tokens),
                           .positions = rows(buf_.positions),
                           .cu_seqlens = buf_.decode_cu_q.slice(0, 0, num_rows + 1),
                           .block_table = rows(buf_.block_table),
                           .kv_lens = rows(buf_.kv_lens),
                           .slots = rows(buf_.slots)};
  const model::ServingActivations acts = model::first_tokens(buf_.acts, model_.config, num_rows);
  model::serving_fwd(ctx, model_.config, model_.weights, batch, cache_, 1, acts);
  model::serving_head(ctx, model_.weights, acts.normed, {}, buf_.logits.slice(0, 0, num_rows));
  sample(ctx, 0, num_rows);
}

void Runner::decode() {
  int64_t num_rows = 0;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const Row& r = rows_[i];
    if (!r.decoding) continue;
    check<RequestError>(r.length < r.max_tokens, "row ", i, ": the sequence is full: it was started for ",
                        r.max_tokens, " tokens");
    num_rows = static_cast<int64_t>(i) + 1;
  }
  dcheck(num_rows > 0, "a decode step without a sequence");
  for (Row& r : rows_) r.length += r.decoding ? 1 : 0;
  if (!ctx_.backend || !limits_.graphs || sync_every_op()) return decode_step(ctx_, num_rows);
  const int64_t bucket = rows_of_graph(num_rows, limits_);
  if (graphs_.size() == kMostGraphs && !graphs_.contains(bucket)) graphs_.clear();
  std::unique_ptr<Graph>& graph = graphs_[bucket];
  if (!graph) {
    ctx_.backend->begin_capture();
    decode_step(ctx_, bucket);
    graph = ctx_.backend->end_capture();
  }
  graph->launch();
}

std::vector<int32_t> Runner::tokens(int64_t num_rows) {
  std::vector<int32_t> host(static_cast<size_t>(num_rows));
  download(ctx_, host.data(), buf_.tokens.slice(0, 0, num_rows));
  return host;
}

void Runner::set_tokens(const std::vector<int32_t>& tokens) {
  upload_vector(ctx_, buf_.tokens, tokens);
  synchronize(ctx_, "runner: setting tokens");
}

std::vector<float> Runner::logits(int64_t num_rows) {
  std::vector<float> host(static_cast<size_t>(num_rows * config().vocab_size));
  download(ctx_, host.data(), buf_.logits.slice(0, 0, num_rows));
  return host;
}

void Runner::assume_length(int64_t num_rows, int64_t length) {
  for (int64_t i = 0; i < num_rows; ++i) {
    Row& r = rows_.at(static_cast<size_t>(i));
    dcheck(r.active() && length < r.max_tokens, "row ", i, " has no room for ", length, " tokens");
    r.length = length;
    r.decoding = true;
  }
  upload_vector(ctx_, buf_.kv_lens,
                std::vector<int32_t>(static_cast<size_t>(num_rows), static_cast<int32_t>(length)));
  synchronize(ctx_, "runner: an assumed length");
}

void Runner::assume_context(int64_t num_rows, int64_t length) {
  uint64_t stream = 1;
  for (const std::vector<Tensor>* pages : {&cache_.k_pages, &cache_.v_pages})
    for (const Tensor& t : *pages) ops::random_fill(ctx_, {.x = t, .std = 1, .seed = stream++});
  const float scale = 1 / ops::fill_std({.x = cache_.k_pages[0]});  // so that the values' deviation is 1
  for (const std::vector<Tensor>* scales : {&cache_.k_scales, &cache_.v_scales})
    for (const Tensor& t : *scales)
      upload(ctx_, t, std::vector<float>(static_cast<size_t>(t.numel()), scale).data());
  assume_length(num_rows, length);
}

}  // namespace moge::engine
