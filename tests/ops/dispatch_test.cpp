// The list of implementations, and what it knows of an op's arguments.
#include "core/dispatch.h"

#include <gtest/gtest.h>

#include "ops/attention.h"
#include "ops/random_fill.h"
#include "ops/sampling.h"
#include "ops/token_layer.h"
#include "refusal.h"

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
  EXPECT_EQ(num_tensors<ops::TokenLayer>(), 22);
  ops::KvWrite args;
  args.slots = Tensor(nullptr, DType::kI32, {7});
  const ops::KvWrite& constant = args;
  int64_t elements = 0;
  for_each_tensor(constant, [&](const Tensor& t) { elements += t.numel(); });
  EXPECT_EQ(elements, 7);
  for_each_tensor(args, [](Tensor& t) { t = {}; });
  EXPECT_FALSE(args.slots);
}

TEST(Dispatch, SaysWhichOpOfWhichTensorsADeviceFailed) {
  const OpTable<ops::RandomFill> table{
      "random_fill",
      {{"test.fails", DeviceKind::kCpu, [](const ops::RandomFill&) { return Refusal(); },
        [](ExecContext&, const ops::RandomFill&, std::span<std::byte>) {
          throw DeviceError("random_fill: launch of 3x1x1 blocks: out of resources");
        }}}};
  ExecContext ctx;
  EXPECT_EQ(test::refusal<DeviceError>([&] {
              dispatch(ctx, table, ops::RandomFill{.x = Tensor(nullptr, DType::kBF16, {64, 256})});
            }),
            "random_fill: launch of 3x1x1 blocks: out of resources; in random_fill, test.fails, of "
            "bf16[64, 256]");
}

}  // namespace
}  // namespace moge::test
