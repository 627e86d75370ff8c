#include "ops/cuda/register.h"

#include "core/dispatch.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/decode_inputs.h"
#include "ops/cuda/rope.h"
#include "ops/cuda/rope_kv_write.h"

namespace moge::ops::cuda {

namespace {

template <class Args>
void add(OpTable<Args>& table, const std::vector<Impl<Args>>& impls) {
  table.impls.insert(table.impls.begin(), impls.begin(), impls.end());
}

}  // namespace

void register_ops() {
  add(paged_attention_table(), paged_attention_impls());
  add(rope_table_table(), rope_table_impls());
  add(rope_kv_write_table(), rope_kv_write_impls());
  add(decode_inputs_table(), decode_inputs_impls());
}

}  // namespace moge::ops::cuda
