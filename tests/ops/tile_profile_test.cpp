#include "ops/tile_profile.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/files.h"
#include "refusal.h"
#include "temp_dir.h"

namespace moge::test {
namespace {

using ops::TileProblem;
using ops::TileProfile;
using ops::TileShape;

constexpr TileProblem kGateUp{DType::kI8, 68, true, 2688, 5120};
constexpr const char* kText =
    "# a card\n"
    "i8 68 gathered 2688 5120 12 256x16 41.5\n"
    "i8 68 gathered 2688 5120 3600 256x64 243\n"
    "\n"
    "fp8_e4m3 1 contiguous 7168 5120 64 64x64 12.5  # dense\n";

TEST(TileProfile, TakesTheNearestNumberOfRowsInRatio) {
  const TileProfile profile = TileProfile::parse(kText, "text");
  EXPECT_EQ(profile.find(kGateUp, 1), (TileShape{256, 16}));
  EXPECT_EQ(profile.find(kGateUp, 207), (TileShape{256, 16}));  // sqrt(12 x 3600) = 207.8
  EXPECT_EQ(profile.find(kGateUp, 209), (TileShape{256, 64}));
  EXPECT_EQ(profile.find(kGateUp, 1 << 30), (TileShape{256, 64}));
  EXPECT_EQ(profile.find(kGateUp, 0), (TileShape{256, 16}));
  EXPECT_EQ(profile.find({DType::kFP8E4M3, 1, false, 7168, 5120}, 64), (TileShape{64, 64}));
}

TEST(TileProfile, KnowsNothingOfOtherProblems) {
  const TileProfile profile = TileProfile::parse(kText, "text");
  for (TileProblem other :
       {TileProblem{DType::kFP8E4M3, 68, true, 2688, 5120}, TileProblem{DType::kI8, 64, true, 2688, 5120},
        TileProblem{DType::kI8, 68, false, 2688, 5120}, TileProblem{DType::kI8, 68, true, 2688, 5104}})
    EXPECT_EQ(profile.find(other, 12), std::nullopt);
  EXPECT_EQ(TileProfile().find(kGateUp, 12), std::nullopt);
}

TEST(TileProfile, ReadsWhatItWrites) {
  const std::string text = TileProfile::parse(kText, "text").text();
  EXPECT_EQ(TileProfile::parse(text, "text").text(), text);
  EXPECT_EQ(TileProfile::parse("", "text").text(), "");
}

TEST(TileProfile, NewMeasurementsReplaceAllOfTheSameProblem) {
  TileProfile profile = TileProfile::parse(kText, "text");
  profile.replace_by(TileProfile({{kGateUp, 24, {128, 256}, 50}}));
  EXPECT_EQ(profile.find(kGateUp, 12), (TileShape{128, 256}));
  EXPECT_EQ(profile.timings().size(), 2U);
}

TEST(TileProfile, RefusesLinesThatAreNoMeasurement) {
  for (const std::string line :
       {"i8 68 gathered 2688 5120 12 256x16", "i8 68 gathered 2688 5120 12 256x16 41.5 more",
        "i4 68 gathered 2688 5120 12 256x16 41.5", "i8 68 scattered 2688 5120 12 256x16 41.5",
        "i8 0 gathered 2688 5120 12 256x16 41.5", "i8 68 gathered 2688 -5120 12 256x16 41.5",
        "i8 68 gathered 2688 5120 99999999999999999999 256x16 41.5",
        "i8 68 gathered 2688 5120 12 256y16 41.5", "i8 68 gathered 2688 5120 12 256x0 41.5",
        "i8 68 gathered 2688 5120 12 256x16 nan", "i8 68 gathered 2688 5120 12 256x16 -1", "\x01\xff"}) {
    const std::string why = refusal([&] { TileProfile::parse("# comment\n" + line + "\n", "a/file"); });
    EXPECT_NE(why.find("a/file, line 2: expected"), std::string::npos) << line << ": " << why;
  }
}

TEST(TileProfile, LiesInTheCacheUnderTheDevicesName) {
  const TempDir dir;
  setenv("MOGE_CACHE", dir.path().c_str(), 1);
  const std::filesystem::path path = ops::tile_profile_path("NVIDIA H200");
  EXPECT_EQ(path, dir / "tiles-nvidia-h200.txt");
  EXPECT_TRUE(ops::load_tile_profile("NVIDIA H200").timings().empty());
  atomic_write_file(path, kText);
  EXPECT_EQ(ops::load_tile_profile("NVIDIA H200").timings().size(), 3U);
  EXPECT_TRUE(ops::load_tile_profile("NVIDIA H100").timings().empty());
  atomic_write_file(path, "no profile\n");
  EXPECT_NE(refusal([] { ops::load_tile_profile("NVIDIA H200"); }).find("h200.txt, line 1"),
            std::string::npos);
  unsetenv("MOGE_CACHE");
}

TEST(TileProfile, IsWrittenWholeOrNotAtAll) {
  const TempDir dir;
  setenv("MOGE_CACHE", dir.path().c_str(), 1);
  const TileProfile profile = TileProfile::parse(kText, "text");
  ops::save_tile_profile("NVIDIA H200", profile);
  EXPECT_EQ(ops::load_tile_profile("NVIDIA H200").text(), profile.text());
  // What load_tile_profile() would refuse does not replace what it reads.
  const std::string why = refusal([] {
    ops::save_tile_profile("NVIDIA H200", TileProfile({{kGateUp, 24, {0, 0}, 50}}));
  });
  EXPECT_NE(why.find("tiles-nvidia-h200.txt, line 2: expected"), std::string::npos) << why;
  EXPECT_EQ(ops::load_tile_profile("NVIDIA H200").text(), profile.text());
  unsetenv("MOGE_CACHE");
}

}  // namespace
}  // namespace moge::test
