#include "ops/cuda/register.h"

#include "core/dispatch.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/decode_inputs.h"
#include "ops/cuda/embedding.h"
#include "ops/cuda/moe_route.h"
#include "ops/cuda/quant_matmul.h"
#include "ops/cuda/quantize.h"
#include "ops/cuda/random_fill.h"
#include "ops/cuda/residual_norm.h"
#include "ops/cuda/rope.h"
#include "ops/cuda/rope_kv_write.h"
#include "ops/cuda/sampling.h"
#include "ops/cuda/token_layer.h"

namespace moge::ops::cuda {

namespace {

template <class Args>
void add(OpTable<Args>& table, const std::vector<Impl<Args>>& impls) {
  table.impls.insert(table.impls.begin(), impls.begin(), impls.end());
}

}  // namespace

void register_ops() {
  add(decode_inputs_table(), decode_inputs_impls());
  add(embedding_fwd_table(), embedding_fwd_impls());
  add(moe_route_table(), moe_route_impls());
  add(paged_attention_table(), paged_attention_impls());
  add(quant_matmul_table(), quant_matmul_impls());
  add(quantize_rows_table(), quantize_rows_impls());
  add(random_fill_table(), random_fill_impls());
  add(residual_norm_table(), residual_norm_impls());
  add(rope_kv_write_table(), rope_kv_write_impls());
  add(rope_table_table(), rope_table_impls());
  add(sampling_table(), sampling_impls());
  add(token_layer_table(), token_layer_impls());
}

}  // namespace moge::ops::cuda
