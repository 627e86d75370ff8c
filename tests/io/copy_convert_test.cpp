#include "io/copy_convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/buffer.h"
#include "core/error.h"

namespace moge::io {
namespace {

OwnedTensor counting(Shape shape) {
  OwnedTensor t(DType::kF32, shape);
  for (int64_t i = 0; i < t->numel(); ++i) t->ptr<float>()[i] = static_cast<float>(i) - 7.25F;
  return t;
}

TEST(F16, EveryValueSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 half{static_cast<uint16_t>(bits)};
    const float value = to_f32(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_f32(to_f16(value))));
    } else {
      EXPECT_EQ(to_f16(value).bits, bits) << value;
    }
  }
}

TEST(F16, RoundsToNearestEven) {
  EXPECT_EQ(to_f16(1.0F + 0x1p-11F).bits, 0x3c00);      // half way to the next: even is below
  EXPECT_EQ(to_f16(1.0F + 0x3p-11F).bits, 0x3c02);      // half way: even is above
  EXPECT_EQ(to_f16(1.0F + 0x1.004p-11F).bits, 0x3c01);  // just above half way
  EXPECT_EQ(to_f16(65519.0F).bits, 0x7bff);             // the largest finite
  EXPECT_EQ(to_f16(65520.0F).bits, 0x7c00);             // rounds to infinity
  EXPECT_EQ(to_f16(-1e9F).bits, 0xfc00);
  EXPECT_EQ(to_f16(0x1p-25F).bits, 0);  // half of the smallest subnormal
  EXPECT_EQ(to_f16(0x1.8p-25F).bits, 1);
  EXPECT_EQ(to_f16(0x1.ffcp-15F + 0x1p-25F).bits, 0x0400);  // rounds up to the smallest normal
}

TEST(CopyConvert, BetweenFloats) {
  const OwnedTensor f32 = counting({5, 9});
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const OwnedTensor narrow(dtype, {5, 9});
    const OwnedTensor back(DType::kF32, {5, 9});
    copy_convert(narrow, f32);
    copy_convert(back, narrow);
    for (int64_t i = 0; i < 45; ++i) EXPECT_EQ(back->ptr<float>()[i], f32->ptr<float>()[i]);  // all are exact
  }
  const OwnedTensor bf16(DType::kBF16, {2});
  const OwnedTensor f16(DType::kF16, {2});
  bf16->ptr<BF16>()[0] = to_bf16(-0.5F);
  bf16->ptr<BF16>()[1] = to_bf16(1e30F);
  copy_convert(f16, bf16);
  EXPECT_EQ(f16->ptr<F16>()[0].bits, 0xb800);
  EXPECT_EQ(f16->ptr<F16>()[1].bits, 0x7c00);
}

TEST(CopyConvert, StridedBothWaysAndInParallel) {
  ThreadPool pool(2);
  const OwnedTensor big = counting({40, 50, 60});
  const Tensor src = big->slice(1, 10, 40).slice(2, 3, 53);  // [40, 30, 50], rows apart
  const OwnedTensor frame(DType::kBF16, {45, 30, 55});
  const Tensor dst = frame->slice(0, 5, 45).slice(2, 5, 55);
  copy_convert(dst, src, &pool);
  const OwnedTensor flat(DType::kF32, {40, 30, 50});
  copy_convert(flat, src);
  for (int64_t i = 0; i < 40; ++i) {
    for (int64_t j = 0; j < 30; ++j) {
      for (int64_t k = 0; k < 50; ++k) {
        const float value = big->ptr<float>()[(i * 50 + j + 10) * 60 + k + 3];
        ASSERT_EQ(flat->ptr<float>()[(i * 30 + j) * 50 + k], value);
        ASSERT_EQ(frame->ptr<BF16>()[((i + 5) * 30 + j) * 55 + k + 5].bits, to_bf16(value).bits);
      }
    }
  }
  for (int64_t i = 0; i < 5 * 30 * 55; ++i) ASSERT_EQ(frame->ptr<BF16>()[i].bits, 0);  // outside the slice
}

TEST(CopyConvert, Transposed) {
  const OwnedTensor a = counting({3, 4});
  Tensor transposed = a;
  transposed.shape = {4, 3};
  transposed.strides = {1, 4};
  const OwnedTensor b(DType::kF32, {4, 3});
  copy_convert(b, transposed);
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 3; ++j) EXPECT_EQ(b->ptr<float>()[i * 3 + j], a->ptr<float>()[j * 4 + i]);
  }
}

TEST(CopyConvert, RefusesWhatItCannotDo) {
  const OwnedTensor f32(DType::kF32, {4});
  EXPECT_THROW(copy_convert(f32, OwnedTensor(DType::kF32, {5})), ShapeError);
  EXPECT_THROW(copy_convert(f32, OwnedTensor(DType::kI32, {4})), ShapeError);
  EXPECT_THROW(copy_convert(OwnedTensor(DType::kFP8E4M3, {4}), f32), ShapeError);
  EXPECT_NO_THROW(copy_convert(OwnedTensor(DType::kF32, {0, 4}), OwnedTensor(DType::kBF16, {0, 4})));
}

TEST(FindNonfinite, NamesTheFirst) {
  const OwnedTensor f32 = counting({100, 1000});
  EXPECT_EQ(find_nonfinite(f32), std::nullopt);
  f32->ptr<float>()[99999] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(find_nonfinite(f32), 99999);
  f32->ptr<float>()[70000] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(find_nonfinite(f32), 70000);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const OwnedTensor t(dtype, {100, 1000});
    copy_convert(t, f32);
    EXPECT_EQ(find_nonfinite(t).has_value(), true);
  }
  const OwnedTensor fp8(DType::kFP8E4M3, {4});
  EXPECT_EQ(find_nonfinite(fp8), std::nullopt);
  static_cast<uint8_t*>(fp8->data)[2] = 0xff;
  EXPECT_EQ(find_nonfinite(fp8), 2);
  EXPECT_EQ(find_nonfinite(OwnedTensor(DType::kI32, {4})), std::nullopt);
}

}  // namespace
}  // namespace moge::io
