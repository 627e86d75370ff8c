// One sequence and everything it needs in memory: packed weights, pages for its keys and values, activations
// for a piece of its prompt, workspace. All of it is planned before the first token and never grows.
#pragma once
#include <array>
#include <span>
#include <vector>

#include "core/memory_text.h"
#include "engine/sequence.h"
#include "model/loader.h"
#include "model/transformer.h"

namespace moge::engine {

struct SessionConfig {
  int64_t context = 4096;          ///< tokens of the longest sequence, at most max_position_embeddings
  DType kv_dtype = DType::kBF16;   ///< of cached keys and values, bf16 or f32
  int64_t max_batch_tokens = 256;  ///< tokens of one forward pass: how finely a prompt is cut
};

class Session : public Sequence {
 public:
  /// Bytes by purpose.
  struct MemoryPlan {
    int64_t weights, kv_cache, activations, workspace;
    int64_t total() const { return weights + kv_cache + activations + workspace; }
    std::array<MemoryPart, 4> parts() const;
    std::string str() const { return memory_text(parts()); }  ///< "weights 0.94 GiB, KV cache ..."
  };
  /// What a Session of this configuration will allocate, without allocating it; but for the ops' workspace,
  /// some MiB.
  static MemoryPlan plan(const spec::ModelConfig& config, DType weights, const SessionConfig& limits);
  /// Throws OutOfMemoryError when the plan is larger than `free` (model/memory_fit.h, free_bytes): which
  /// part, by how much, and how long a context would fit.
  static void check_fits(const spec::ModelConfig& config, DType weights, const SessionConfig& limits,
                         int64_t free);

  /// Takes the model over and packs it (model::pack_for_inference). `ctx` needs a pool. Throws UsageError for
  /// sizes that the model does not have, OutOfMemoryError.
  Session(ExecContext ctx, model::Model model, const SessionConfig& config);

  const spec::ModelConfig& config() const override { return model_.config; }
  const SessionConfig& limits() const { return limits_; }
  DType weight_dtype() const { return model_.weights.embed_tokens.dtype; }
  ExecContext& exec_context() { return ctx_; }
  int64_t context() const override { return limits_.context; }
  int64_t max_batch_tokens() const override { return limits_.max_batch_tokens; }
  std::string memory_plan_text() const override { return plan_.str(); }
  int64_t memory_bytes() const override { return plan_.total(); }
  int64_t decode_read_bytes(int64_t cached_tokens) const override;

  const std::vector<int32_t>& tokens() const override { return tokens_; }
  void truncate(int64_t num_tokens) override;
  void start_sampling(const SamplingParams& params, std::span<const int32_t> prompt) override {
    sampler_.start(params, prompt);
  }
  void append(std::span<const int32_t> tokens, bool last) override;
  int32_t draw() override { return sampler_.sample(logits()); }
  /// Appends 1 to max_batch_tokens tokens: one forward pass. However a sequence is cut into passes, its
  /// hidden states are the same bits. RequestError when the context is full or a token is unknown.
  void append(std::span<const int32_t> tokens) { append(tokens, true); }
  /// [V] f32: of what follows the last appended token. Computed by the call, valid until the next.
  Tensor logits();

  const MemoryPlan& memory_plan() const { return plan_; }

 private:
  struct Buffers {
    model::Activations acts;
    Tensor tokens, positions, slots;  // [max_batch_tokens] i32
    Tensor cu_seqlens;                // [2] i32
    Tensor kv_lens;                   // [1] i32
    Tensor block_table;               // [1, P] i32
    Tensor logits;                    // [1, V]
  };
  static Buffers allocate_buffers(Arena& arena, const spec::ModelConfig& config, const SessionConfig& limits);
  static model::KvCache allocate_cache(Arena& arena, const spec::ModelConfig& config,
                                       const SessionConfig& limits);
  model::Activations activations(int64_t num_tokens) const;
  model::Batch batch(int64_t num_tokens) const;
  void plan_workspace();

  ExecContext ctx_;
  SessionConfig limits_;
  model::Model model_;
  Arena cache_memory_;
  model::KvCache cache_;
  Arena buffer_memory_;
  Buffers buf_;
  model::Activations one_token_;  // views for decoding, made once
  Workspace workspace_;
  Sampler sampler_;
  MemoryPlan plan_{};
  std::vector<int32_t> tokens_;
  int64_t last_row_ = 0;  // of the last pass
};

}  // namespace moge::engine
