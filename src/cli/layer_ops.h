// The operators of a layer and of a step's ends, each with what it is reported as and how it is called
// (cli/step_timer.h).
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "cli/layer_setup.h"
#include "cli/step_timer.h"
#include "ops/token_layer.h"

namespace moge::cli {

/// An operator to be measured. It refers to the LayerSetup's buffers.
struct LayerOp {
  const char* what;  ///< in the table: "down_proj"
  const char* op;    ///< in moge sim's: "routed_matmul"
  nlohmann::ordered_json shape;
  const char* dtype;
  double bytes, flops;
  StepOp step;
  nlohmann::ordered_json beside_shape = {};  ///< of step.beside
  bool reported = true;
  bool is_product() const { return std::string_view(op).ends_with("matmul"); }
};

/// What the tokens of a pass attend to.
struct Attended {
  int64_t sequences;
  int64_t queries;  ///< rows of each: 1 is decoding, all of them a whole prompt
  int64_t context;
  bool decodes() const { return queries == 1; }
  int64_t tokens() const { return sequences * queries; }
};

// ---- products (product_ops.cpp)

/// [T, k] x [n, k]^T.
LayerOp dense_op(const LayerSetup& layer, ProductIndex product, const Operands& operands);
/// The same of the shared experts, which begins under the end of the routed experts'.
LayerOp dense_beside_op(const LayerSetup& layer, ProductIndex product, const Operands& operands, int64_t T);
LayerOp router_op(const LayerSetup& layer, const Routings& routings, int64_t T);
/// Each call meets the experts that its own draw hits.
LayerOp routed_op(const LayerSetup& layer, ProductIndex product, const Operands& operands,
                  const Routings& routings, int64_t T);
/// Every expert with `rows` rows.
LayerOp grouped_op(const LayerSetup& layer, ProductIndex product, const Operands& operands,
                   const Routing& routing, int64_t rows);
/// All that an MoE layer does to one token between two attentions as one op; none where there is no such op.
std::optional<LayerOp> token_layer_op(const LayerSetup& layer);

// ---- all others (layer_ops.cpp)

/// Adds one row to each token, or with `slot_row` in an MoE the slots' rows too. The latter goes on to the
/// residual stream and the next layer's first product alone, the former to the router too, which reads bf16,
/// and in an MoE to the stream later.
LayerOp residual_norm_op(const LayerSetup& layer, int64_t T, int64_t added, const Tensor& slot_row = {});
LayerOp quantize_op(const Tensor& x, const Tensor& q, const Tensor& scale);
/// Allocates the pages that it writes as layer.kv.
LayerOp rope_kv_write_op(LayerSetup& layer, int64_t T);
/// Decoding calls read caches that the L2 does not hold; a prompt's keys and values have just been written to
/// layer.kv.
LayerOp attention_op(LayerSetup& layer, const Attended& at);
/// What a step begins with, as one: of decoding rows positions and slots; the rotations' table, embeddings.
LayerOp step_inputs_op(LayerSetup& layer, const Attended& at);
/// Greedy.
LayerOp sampling_op(LayerSetup& layer, const Tensor& logits);

}  // namespace moge::cli
