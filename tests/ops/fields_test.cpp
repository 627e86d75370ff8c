#include "ops/fields.h"

#include <gtest/gtest.h>

#include "ops/attention.h"
#include "ops/random_fill.h"
#include "ops/sampling.h"

namespace moge::test {
namespace {

template <class Args>
int num_tensors() {
  Args args;
  int n = 0;
  for_each_tensor(args, [&](Tensor&) { ++n; });
  return n;
}

TEST(Fields, FindsEveryTensorOfTheArguments) {
  EXPECT_EQ(num_tensors<ops::RandomFill>(), 1);
  EXPECT_EQ(num_tensors<ops::PagedAttention>(), 9);
  EXPECT_EQ(num_tensors<ops::Sampling>(), 14);
  ops::KvWrite args;
  args.slots = Tensor(nullptr, DType::kI32, {7});
  const ops::KvWrite& constant = args;
  int64_t elements = 0;
  for_each_tensor(constant, [&](const Tensor& t) { elements += t.numel(); });
  EXPECT_EQ(elements, 7);
  for_each_tensor(args, [](Tensor& t) { t = {}; });
  EXPECT_FALSE(args.slots);
}

}  // namespace
}  // namespace moge::test
