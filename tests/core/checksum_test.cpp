#include "core/checksum.h"

#include <gtest/gtest.h>

#include <string_view>

namespace moge {
namespace {

// `printf '' | xxh64sum`, `printf abc | xxh64sum`.
TEST(Checksum, KnownAnswersInOnePieceOrSeveral) {
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  EXPECT_EQ(Checksum().hex(), "ef46db3751d8e999");
  Checksum pieces;
  pieces.update(bytes("a"));
  pieces.update(bytes("bc"));
  EXPECT_EQ(pieces.hex(), "44bc2cf5ad770999");
  EXPECT_EQ(Checksum::of(bytes("abc")), pieces.value());
  EXPECT_EQ(Checksum::hex(0x1f), "000000000000001f");
}

}  // namespace
}  // namespace moge
