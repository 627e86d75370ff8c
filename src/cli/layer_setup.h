// One layer of a model on a GPU, as the benchmark of its operators wants it: weights, the buffers of a pass,
// routings; all random.
#pragma once
#include <vector>

#include "cli/product_bench.h"
#include "core/exec_context.h"
#include "model/activations.h"
#include "model/serving.h"

namespace moge::cli {

inline constexpr int64_t kPageSize = 64;

struct Product {
  ProductShape shape;
  ProductWeights weights;
};
/// Where layer_products() has them.
enum ProductIndex : size_t { kQkv, kO, kGateUp, kDown, kHead, kSharedGateUp, kSharedDown };

/// What a product reads and writes.
struct Operands {
  Tensor c, a, a_scale;
};
inline Operands rows_of(const Tensor& c, const Tensor& bf16, const Tensor& q8, const Tensor& scale) {
  return q8 ? Operands{c, q8, scale} : Operands{c, bf16, {}};
}

/// What moe_route leaves for the products of one layer.
struct Routing {
  Tensor topk_ids, topk_weights, offsets, row_token, row_weight, slot_row;
};
struct Routings {
  std::vector<Routing> drawn;  ///< which differ, of the routed experts alone
  double experts_hit = 0;      ///< the mean
  Routing written;             ///< by a router that is timed
};

/// A grouped product's rows, the same number for every expert.
struct SameRows {
  Routing routing;
  Operands gate_up, down;
};

struct LayerSetup {
  LayerSetup(Backend& backend, const spec::ModelConfig& config, DType dtype, DType kv_dtype);

  /// Frees all that place() allocated.
  void clear() { memory.clear(); }
  /// Runs `allocate` over a counting arena, then over memory of that size.
  template <class Allocate>
  void place(const Allocate& allocate) {
    Arena plan;
    allocate(plan);
    memory.emplace_back(plan.used_bytes(), "ops benchmark", &backend);
    allocate(memory.back());
  }
  /// Clears, then allocates `acts` of T tokens.
  void begin_pass(int64_t T);
  /// Each of T tokens that the model's own router draws anew; overwrites acts.normed.
  Routings draw_routings(int64_t T);
  /// Routes acts.normed.
  void route(ExecContext& run, const Routing& to) const;
  SameRows same_rows(int64_t rows);
  /// `count` pages of a KV cache.
  model::KvPages pages(Arena& arena, int64_t count) const;
  /// first, first + step, ..., modulo `modulus`.
  void upload_iota(const Tensor& to, int64_t step = 1, int64_t first = 0, int64_t modulus = INT32_MAX);

  const spec::ModelConfig& config;
  DType dtype, kv_dtype;
  Backend& backend;
  ExecContext ctx;
  int64_t D, F;
  int64_t shared;  ///< 1 with shared experts, which are one MLP
  int64_t slots;   ///< rows that a token's result is made of
  std::vector<Product> products;
  Tensor gate, norm;
  model::ServingActivations acts;
  model::KvPages kv;  ///< that the pass writes

  Arena weights;
  std::vector<Arena> memory;  ///< but for weights
};

}  // namespace moge::cli
