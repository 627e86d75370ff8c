#include "ops/cuda/register.h"

#include "core/dispatch.h"

namespace moge::ops::cuda {

namespace {

template <class Args>
[[maybe_unused]] void add(OpTable<Args>& table, const std::vector<Impl<Args>>& impls) {
  table.impls.insert(table.impls.begin(), impls.begin(), impls.end());
}

}  // namespace

void register_ops() {}

}  // namespace moge::ops::cuda
