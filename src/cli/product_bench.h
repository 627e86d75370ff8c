// A layer's products (ops/quant_matmul.h) on random operands, to time them on a GPU.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "ops/quant_matmul.h"
#include "spec/model_config.h"

namespace moge::cli {

/// What a product computes, but for its rows.
struct ProductShape {
  std::string name;  ///< "gate_up_proj"
  int64_t groups;    ///< experts; 1: dense
  int64_t n, k;
  DType dtype;
  bool silu_mul = false;
  bool gathers = false;  ///< reads its rows through row_ids, when it has groups
  bool weighs = false;   ///< has row_weight, when it has groups
};
/// qkv, o, gate_up, down and the head, then gate_up and down of the shared experts, if any. Operands are
/// `dtype`, the head's bf16.
std::vector<ProductShape> layer_products(const spec::ModelConfig& config, DType dtype);

/// Copies of a product's weights and their scales, which bf16 has none of.
struct ProductWeights {
  std::vector<Tensor> w, scale;
};
/// So many that the L2 never holds the next one.
ProductWeights allocate_weights(Arena& arena, const Backend& backend, const ProductShape& shape);

/// The rows of each group, as tokens: row i of a group is that of token rows[group][i].
using GroupRows = std::vector<std::vector<int32_t>>;
/// `tokens` in every group.
GroupRows same_rows(int64_t groups, int64_t tokens);
/// Each token in K / groups experts of every routing group, at random.
GroupRows routed_rows(const spec::ModelConfig& config, int64_t tokens);

class ProductBench {
 public:
  /// One product over as many copies of its weights as the L2 cannot hold. `gathered` false: each row of c
  /// reads the same row of a, whatever the shape says.
  ProductBench(Backend& backend, const ProductShape& shape, const GroupRows& rows, bool gathered);

  using Run = std::function<void(ExecContext&, const ops::QuantMatmul&)>;
  /// Median of a call (cli/graph_timer.h).
  double seconds(const Run& run) const;
  int64_t num_rows() const { return calls_[0].c.dim(0); }
  const ops::QuantMatmul& product() const { return calls_[0]; }
  /// Weights, activations and result once.
  double bytes() const;
  double flops() const;

 private:
  void allocate(Arena& arena, const ProductShape& shape, int64_t num_rows, int64_t num_tokens, bool gathered);
  Backend& backend_;
  Arena memory_;
  std::vector<ops::QuantMatmul> calls_;
};

}  // namespace moge::cli
