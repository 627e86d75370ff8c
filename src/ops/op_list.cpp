#include "ops/op_list.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/error.h"
#include "core/nearest.h"
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/balance_loss.h"
#include "ops/combine.h"
#include "ops/cross_entropy.h"
#include "ops/decode_inputs.h"
#include "ops/embedding.h"
#include "ops/group_router.h"
#include "ops/matmul.h"
#include "ops/moe_route.h"
#include "ops/permute.h"
#include "ops/quant_matmul.h"
#include "ops/quantize.h"
#include "ops/random_fill.h"
#include "ops/residual_norm.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"
#include "ops/rope_kv_write.h"
#include "ops/sampling.h"
#include "ops/silu_mul.h"
#include "ops/token_layer.h"

namespace moge::ops {

namespace {

template <class Args>
OpNames names_of(const OpTable<Args>& table) {
  OpNames names{table.op, {}};
  for (const Impl<Args>& impl : table.impls) names.impls.emplace_back(impl.name);
  return names;
}

void check_forced(const std::string& op, const std::string& impl) {
  std::vector<std::string> ops, impls;
  for (const OpNames& names : all_ops()) {
    ops.push_back(names.op);
    if (!op.empty() && names.op != op) continue;
    for (const std::string& name : names.impls)
      if (std::ranges::find(impls, name) == impls.end()) impls.push_back(name);
  }
  if (op == token_layer_table().op)
    impls.emplace_back("none");  // the caller takes other ops (ops/token_layer.h)
  check<UsageError>(op.empty() || std::ranges::find(ops, op) != ops.end(), "MOGE_IMPL: there is no op '", op,
                    "'", did_you_mean_one_of(op, ops));
  const bool known = std::ranges::find(impls, impl) != impls.end() || impl.starts_with("cuda.");
  check<UsageError>(known, "MOGE_IMPL: ", op.empty() ? "no op" : op, " has ", op.empty() ? "" : "no ",
                    "implementation '", impl, "'", did_you_mean_one_of(impl, impls));
}

}  // namespace

std::vector<OpNames> all_ops() {
  return {names_of(adamw_table()),
          names_of(sum_squares_table()),
          names_of(attention_fwd_table()),
          names_of(attention_bwd_table()),
          names_of(paged_attention_table()),
          names_of(kv_write_table()),
          names_of(expert_counts_table()),
          names_of(balance_loss_table()),
          names_of(z_loss_table()),
          names_of(combine_fwd_table()),
          names_of(combine_bwd_table()),
          names_of(cross_entropy_table()),
          names_of(decode_inputs_table()),
          names_of(embedding_fwd_table()),
          names_of(embedding_bwd_table()),
          names_of(group_router_fwd_table()),
          names_of(group_router_bwd_table()),
          names_of(matmul_nt_table()),
          names_of(matmul_nn_table()),
          names_of(matmul_tn_table()),
          names_of(bias_bwd_table()),
          names_of(moe_route_table()),
          names_of(permute_fwd_table()),
          names_of(permute_bwd_table()),
          names_of(quant_matmul_table()),
          names_of(quantize_rows_table()),
          names_of(random_fill_table()),
          names_of(residual_norm_table()),
          names_of(rmsnorm_fwd_table()),
          names_of(rmsnorm_bwd_table()),
          names_of(rope_table_table()),
          names_of(rope_op_table()),
          names_of(rope_kv_write_table()),
          names_of(sampling_table()),
          names_of(silu_mul_fwd_table()),
          names_of(silu_mul_bwd_table()),
          names_of(token_layer_table())};
}

void check_environment() {
  verbose_dispatch();
  for (const auto& [op, forced] : forced_impls()) check_forced(op, forced.name);
}

}  // namespace moge::ops
