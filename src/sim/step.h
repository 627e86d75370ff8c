// The time and memory of one serving step (decode, speculative verify, prefill, or a mix) of a model on a
// plan: every kernel and collective of every layer, added up. StepModel is built once for a (model, device,
// format, plan) and then evaluated for many loads; an evaluation allocates nothing. docs/sim.md has the
// formulas.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "sim/device.h"
#include "sim/network.h"
#include "sim/op_table.h"
#include "sim/op_time.h"
#include "sim/precision.h"
#include "sim/routing.h"
#include "spec/cost.h"
#include "spec/model_config.h"
#include "spec/parallel_plan.h"

namespace moge::sim {

/// What one step computes, over all devices of the plan together.
struct StepLoad {
  double decode_requests = 0;   ///< requests that get their next tokens
  double decode_rows = 1;       ///< rows of each: 1, or 1 + K with K draft tokens to verify
  double decode_context = 0;    ///< positions that each of their rows attends to
  double draft_tokens = 0;      ///< K: passes of the draft module over the decoding requests
  double prefill_tokens = 0;    ///< prompt tokens
  double prefill_attended = 0;  ///< positions that each attends to on average, (S + 1) / 2 of a whole prompt
  double prefill_ends = 0;      ///< prompts that end in this step and need logits

  double decode_tokens() const { return decode_requests * decode_rows; }
  double tokens() const { return decode_tokens() + prefill_tokens; }
};

/// B requests, each with C cached positions and K draft tokens.
StepLoad decode_load(double requests, double context, double draft_tokens = 0);
/// Whole prompts of `input` tokens.
StepLoad prefill_load(double requests, double input);
/// Tokens that a request gains in a step: 1 + p + ... + p^K, for K draft tokens, each right with probability
/// p if those before it were.
double tokens_per_step(int64_t draft_tokens, double acceptance);

/// Bytes on the fullest device.
struct DeviceMemory {
  double weights = 0;
  double kv_cache = 0;
  double activations = 0;
  double limit = 0;  ///< the device's memory without what the runtime keeps
  double total() const { return weights + kv_cache + activations; }
  bool fits() const { return total() <= limit; }
};

struct OpRow {
  Op op;
  double seconds = 0;  ///< of all layers, overheads included
  double flops = 0;    ///< on one device
  double bytes = 0;    ///< on one device
  Bound bound = Bound::kMemory;
  Basis basis = Basis::kFormula;
};

struct StepBreakdown {
  double seconds = 0;
  std::vector<OpRow> ops;  ///< in the order of the step; those that take time
  Bound bottleneck = Bound::kMemory;
  double bound_seconds[5] = {};  ///< by Bound: a kernel's fixed time counts as overhead
};

class StepModel {
 public:
  /// Throws UsageError: a plan that does not fit the model or the machine, a format that the machine has no
  /// peak for. `table`, if not null, holds measured times and must outlive this.
  StepModel(const spec::ModelConfig& config, const Device& device, Precision precision,
            const spec::ParallelPlan& plan, double skew = 0, const OpTable* table = nullptr);

  /// Of one step. Finite and positive for a load of at least one token.
  double seconds(const StepLoad& load) const;
  StepBreakdown explain(const StepLoad& load) const;
  /// With `cached_requests` requests of `cached_positions` each in the cache, and steps of `step_tokens`.
  DeviceMemory memory(double cached_requests, double cached_positions, double step_tokens) const;

  const spec::ParallelPlan& plan() const { return plan_; }
  int64_t devices() const { return plan_.devices(); }

 private:
  /// A weight matrix's part on one device.
  struct Matmul {
    double out = 0;
    double in = 0;
    double weight_bytes = 0;
    double flops_rate = 0;
    double in_bytes = 0;  ///< of an input element
    double col_tiles = 0;
    const OpSurface* measured = nullptr;
    const OpSurface* routed = nullptr;  // over tokens, with this model's routing
  };
  /// Kernels between the products as our engine has them, several of the formula's in one; null: not
  /// measured.
  struct MeasuredKernels {
    const OpSurface* norm = nullptr;          // adds a block's output
    const OpSurface* norm_combine = nullptr;  // adds the experts' rows of each token
    const OpSurface* rope_kv_write = nullptr;
    const OpSurface* attention = nullptr;
    const OpSurface* prefill_attention = nullptr;
    const OpSurface* attention_quant = nullptr;
    const OpSurface* mlp_quant = nullptr;  // of a dense model or a routed expert
    const OpSurface* shared_quant = nullptr;
    const OpSurface* moe_route = nullptr;
    const OpSurface* token_layer = nullptr;
    const OpSurface* sampling = nullptr;
    const OpSurface* step_inputs = nullptr;
    const OpSurface* prompt_inputs = nullptr;
    // The shared experts' products, which begin under the routed ones' end.
    const OpSurface* shared_gate_up = nullptr;
    const OpSurface* shared_down = nullptr;
  };
  void make_matmuls(const spec::ModelConfig& c, const Device& device);
  /// Of the collectives. UsageError for more devices than the machine joins.
  void make_rates(const spec::ModelConfig& c, const Device& device);
  void find_measured(const spec::ModelConfig& c, double skew);
  /// `cost` with a measured time in place of the formula's.
  OpCost measured(OpCost cost, const OpSurface* surface, double rows, double length = 0) const;
  Matmul matmul(Op op, spec::LinearShape whole, int64_t out_split, int64_t in_split, bool quantised) const;
  OpCost matmul_cost(const Matmul& m, double rows) const;
  OpCost grouped_cost(const Matmul& expert, double rows, double distinct) const;
  OpCost decode_attention_cost(double requests, double rows, double context) const;
  OpCost prefill_attention_cost(double tokens, double attended) const;
  OpCost vector_cost(double bytes) const;
  OpCost collective_cost(double bytes, double rate) const;
  template <class Sink>
  void add_kernel(Sink& sink, Op op, OpCost cost, double count) const;
  template <class Sink>
  class Layer;
  template <class Sink>
  void step(const StepLoad& load, Sink& sink) const;

  const OpTable* table_;
  spec::ParallelPlan plan_;
  Precision precision_;
  RoutingModel routing_;
  TileShape tile_;
  double D_, V_, L_, experts_, topk_;
  double q_heads_;          // on a device
  double q_width_;          // elements of q on a device
  double kv_width_;         // elements of k and v together on a device
  double attention_flops_;  // of a device, for a query and a position
  double mlp_width_ = 0;
  double expert_width_ = 0;
  double shared_width_ = 0;
  double shared_share_ = 1;  // of the tokens that a device runs through its part of the shared expert or MLP
  bool is_moe_;
  double shared_experts_ = 0;  // its width in routed ones
  MeasuredKernels kernels_;
  Matmul qkv_, o_, gate_up_, down_, router_, expert_gate_up_, expert_down_, shared_gate_up_, shared_down_,
      lm_head_, draft_projection_;
  double tp_rate_ = 0;              // seconds a byte: gather over attention's devices
  double stage_rate_ = 0;           // gather over all devices of the stage
  double stage_exchange_rate_ = 0;  // all-to-all over them
  double logits_rate_ = 0;          // gather over the devices that share the lm_head
  double send_rate_ = 0;            // to the next stage
  double expert_copies_ = 0;        // devices that one token goes to, at most
  double weights_bytes_ = 0;
  double activation_elements_ = 0;  // of a layer and a token
  double op_s_, collective_s_, moe_layer_s_, step_s_, score_s_, overlap_;
  double attention_flops_rate_, memory_bandwidth_, kv_bandwidth_, memory_limit_;
};

}  // namespace moge::sim
