#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/buffer.h"

namespace moge {
namespace {

TEST(Shape, CountsAndRefuses) {
  EXPECT_EQ(Shape({3, 4}).numel(), 12);
  EXPECT_EQ(Shape({3, 0}).numel(), 0);
  EXPECT_EQ(Shape{}.numel(), 0);
  EXPECT_THROW(Shape({-1}), ShapeError);
  EXPECT_THROW(Shape({int64_t{1} << 40, int64_t{1} << 40}).numel(), ShapeError);
}

TEST(Tensor, ViewsPointIntoTheirParent) {
  const OwnedTensor t(DType::kF32, {4, 3, 5});
  auto e = elements<float>(t);
  for (size_t i = 0; i < e.size(); ++i) e[i] = static_cast<float>(i);
  const Tensor row = t.get()[2];
  EXPECT_EQ(row.shape, Shape({3, 5}));
  EXPECT_EQ(*row.ptr<float>(), 30.0F);
  const Tensor cols = t.get().view({12, 5}).slice(1, 2, 4);
  EXPECT_EQ(cols.shape, Shape({12, 2}));
  EXPECT_EQ(cols.stride(0), 5);
  EXPECT_EQ(*cols.ptr<float>(), 2.0F);
  EXPECT_FALSE(cols.is_contiguous());
  EXPECT_THROW(t->ptr<BF16>(), ShapeError);
}

TEST(Arena, CountsThenHandsOutExactlyThat) {
  const auto build = [](Arena& a) {
    a.alloc(DType::kF32, {3, 5});
    return a.alloc(DType::kBF16, {7});
  };
  Arena plan;
  EXPECT_EQ(build(plan).data, nullptr);
  Arena real(plan.used_bytes(), "test arena");
  const Tensor t = build(real);
  EXPECT_NE(t.data, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data) % kAlignment, 0U);
  EXPECT_THROW(real.alloc(DType::kF32, {1}), OutOfMemoryError);
}

TEST(FP8E4M3, EveryCodeComesBack) {
  EXPECT_EQ(to_f32(FP8E4M3{0x7e}), kMaxFP8E4M3);
  EXPECT_EQ(to_f32(FP8E4M3{0x38}), 1.0F);
  EXPECT_EQ(to_f32(FP8E4M3{0x08}), 0x1p-6F);  // the smallest normal
  EXPECT_EQ(to_f32(FP8E4M3{0x81}), -0x1p-9F);
  for (int code = 0; code < 256; ++code) {
    const FP8E4M3 x{static_cast<uint8_t>(code)};
    if ((code & 0x7f) == 0x7f)
      EXPECT_TRUE(std::isnan(to_f32(x)));
    else
      EXPECT_EQ(to_fp8(to_f32(x)).bits, code);
  }
}

TEST(FP8E4M3, RoundsToNearestEvenAndSaturates) {
  for (int code = 0; code < 0x7e; ++code) {
    const float low = to_f32(FP8E4M3{static_cast<uint8_t>(code)});
    const float high = to_f32(FP8E4M3{static_cast<uint8_t>(code + 1)});
    const float middle = (low + high) / 2;
    EXPECT_EQ(to_fp8(std::nextafter(middle, 0.0F)).bits, code);
    EXPECT_EQ(to_fp8(middle).bits, code + code % 2) << "a tie goes to the even code";
    EXPECT_EQ(to_fp8(std::nextafter(middle, 1e3F)).bits, code + 1);
    EXPECT_EQ(to_fp8(-middle).bits, 0x80 + code + code % 2);
  }
  for (const float big : {449.0F, 464.0F, 1e30F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(to_fp8(big).bits, 0x7e);
    EXPECT_EQ(to_fp8(-big).bits, 0xfe);
  }
  EXPECT_EQ(to_fp8(std::numeric_limits<float>::quiet_NaN()).bits & 0x7f, 0x7f);
}

TEST(BF16, RoundsToNearestEven) {
  EXPECT_EQ(to_f32(to_bf16(1.0F)), 1.0F);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f808000U)).bits, 0x3f80);  // tie, to even
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f818000U)).bits, 0x3f82);  // tie, to even
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f808001U)).bits, 0x3f81);
  EXPECT_NE(to_f32(to_bf16(std::bit_cast<float>(0x7f800001U))), to_f32(to_bf16(0.0F)));
}

}  // namespace
}  // namespace moge
