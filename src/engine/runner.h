// Forward passes for many sequences at once on one device: paged keys and values, prompts in pieces, and a
// decode step that is one recorded graph and never waits for the host. All memory is planned before the model
// is loaded.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/memory_text.h"
#include "engine/sampler.h"
#include "model/memory_fit.h"
#include "model/serving.h"

namespace moge::engine {

struct RunnerConfig {
  int64_t max_sequences = 1;        ///< rows of a decode step
  int64_t context = 4096;           ///< tokens of the longest sequence
  int64_t max_batch_tokens = 2048;  ///< of one prefill pass
  int64_t kv_tokens = 0;            ///< cache positions of all sequences; 0: max_sequences x context
  DType kv_dtype = DType::kBF16;    ///< bf16, f16, i8 or fp8_e4m3
  bool penalties = false;           ///< memory for repetition, presence and frequency penalties
  bool graphs = true;               ///< false: decode steps are launched op by op
};

/// Bytes by purpose. Exact but for `graphs`, which are the driver's: recorded steps, and blocks rounded up.
struct RunnerPlan {
  int64_t weights = 0, kv_cache = 0, activations = 0, logits = 0, inputs = 0, workspace = 0, graphs = 0;
  int64_t total() const { return weights + kv_cache + activations + logits + inputs + workspace + graphs; }
  std::array<MemoryPart, 7> parts() const;
  std::string str() const;  ///< "weights 68.2 GiB, KV cache ..., total ..."
};

class Runner {
 public:
  /// What a Runner of this configuration will allocate, without allocating it.
  static RunnerPlan plan(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                         const RunnerConfig& limits);
  /// What plan_that_fits() offers less of.
  enum class Offer { kSequencesAndContext, kLayersToo };
  /// The same. Throws OutOfMemoryError when it is larger than `free` (model/memory_fit.h, free_bytes): which
  /// part, by how much, and how many sequences of this context, or else how long a context of one, or else
  /// how many layers, would fit. Of a plan whose tensors alone are too large the workspace is left out: to
  /// find it takes a dry run of every pass.
  static RunnerPlan plan_that_fits(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                                   const RunnerConfig& limits, int64_t free,
                                   Offer offer = Offer::kSequencesAndContext);

  /// `ctx` has a pool, and a backend unless it is the CPU's. `plan`: of these arguments, where it is known.
  /// Throws UsageError for sizes that the model does not have.
  Runner(ExecContext ctx, model::ServingModel model, const RunnerConfig& limits,
         std::optional<RunnerPlan> plan = {});
  Runner(const Runner&) = delete;  // its context points into it
  Runner& operator=(const Runner&) = delete;

  const spec::ModelConfig& config() const { return model_.config; }
  const RunnerConfig& limits() const { return limits_; }
  DType weight_dtype() const { return model_.dtype; }
  const RunnerPlan& memory_plan() const { return plan_; }
  ExecContext& context() { return ctx_; }

  /// Begins a sequence in a row, with pages for `max_tokens` (prompt and answer). RequestError when the
  /// context or the free pages cannot hold it.
  void start(int64_t row, int64_t max_tokens, const SamplingParams& sampling);
  /// Other parameters from now on: draws are numbered from 0 again, penalties know `prompt` (which is not
  /// cached).
  void set_sampling(int64_t row, const SamplingParams& sampling, std::span<const int32_t> prompt);
  /// Forgets all but the first tokens of a row's sequence; a prefill goes on from there.
  void truncate(int64_t row, int64_t num_tokens);
  /// Gives the row's pages back.
  void stop(int64_t row);

  /// One forward pass over pieces of prompts: pieces[i] is appended to the sequence in row first_row + i.
  /// With `last`, the prompts end there: each sequence's next token is drawn, and decode() goes on from it.
  void prefill(int64_t first_row, std::span<const std::span<const int32_t>> pieces, bool last = true);
  /// One token for each sequence whose prompt is complete. Queued, not awaited.
  void decode();

  /// Waits for the device. The last drawn token of rows 0 .. num_rows-1.
  std::vector<int32_t> tokens(int64_t num_rows);
  /// Waits for the device. The logits [num_rows, V] of the last pass, in its order.
  std::vector<float> logits(int64_t num_rows);
  /// Tokens of the row's sequence whose keys and values are cached.
  int64_t length(int64_t row) const { return rows_[static_cast<size_t>(row)].length; }

  /// Whether decode steps run as recorded graphs from now on. Forgets those recorded so far.
  void set_graphs(bool on) {
    limits_.graphs = on;
    graphs_.clear();
  }
  /// For benchmarks: what decode() goes on from, in place of drawn tokens.
  void set_tokens(const std::vector<int32_t>& tokens);
  /// For benchmarks: as if `length` tokens had been prefilled, over random keys and values.
  void assume_context(int64_t num_rows, int64_t length);
  /// The same over what the cache holds.
  void assume_length(int64_t num_rows, int64_t length);

 private:
  Runner() = default;  // for plan_workspace
  struct Row {
    int64_t length = 0, max_tokens = 0;
    std::vector<int32_t> pages;
    bool decoding = false;  // the prompt is complete
    bool active() const { return max_tokens > 0; }
  };
  /// Device memory of one pass's inputs and of the rows' state.
  struct Buffers {
    model::ServingActivations acts;
    Tensor logits;  // [B, V]
    // State of the rows, [B] each.
    Tensor tokens, kv_lens, positions, slots, block_table, steps, seeds;
    Tensor temperature, top_k, top_p, min_p, repetition, presence, frequency;
    Tensor output_counts, prompt_mask;  // [B, V], with penalties
    Tensor decode_cu_q;                 // [B + 1]: 0, 1, ..., B
    // Inputs of a prefill pass.
    Tensor p_tokens, p_positions, p_slots;  // [T]
    Tensor p_cu_q, p_kv_lens, p_last;       // [B + 1], [B], [B]
  };
  static Buffers allocate_buffers(Arena& arena, const spec::ModelConfig& config, DType weights,
                                  const RunnerConfig& limits, RunnerPlan* plan);
  static model::KvCache allocate_cache(Arena& arena, const spec::ModelConfig& config,
                                       const RunnerConfig& limits);
  /// All but the workspace, for which every size of a pass is tried.
  static RunnerPlan plan_tensors(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                                 const RunnerConfig& limits);
  static int64_t plan_workspace(const ExecContext& ctx, const spec::ModelConfig& config, DType weights,
                                const RunnerConfig& limits);

  void decode_step(ExecContext& ctx, int64_t num_rows) const;
  void prefill_pass(ExecContext& ctx, int64_t first_row, int64_t num_rows, int64_t num_tokens) const;
  void sample(ExecContext& ctx, int64_t first_row, int64_t num_rows) const;
  void upload_row(int64_t row, const SamplingParams& sampling);

  ExecContext ctx_;
  RunnerConfig limits_;
  model::ServingModel model_;
  RunnerPlan plan_;
  Arena cache_memory_, buffer_memory_;
  model::KvCache cache_;
  Buffers buf_;
  Workspace workspace_;
  std::vector<Row> rows_;
  std::vector<int32_t> free_pages_;
  std::map<int64_t, std::unique_ptr<Graph>> graphs_;  // by number of rows
};

}  // namespace moge::engine
