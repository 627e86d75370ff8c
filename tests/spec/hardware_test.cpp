#include "spec/hardware.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "refusal.h"
#include "temp_dir.h"

namespace moge::spec {
namespace {

constexpr const char* kGood = R"(name = "m"
memory_bytes = {value = 8e9, source = "s", status = "datasheet"}
memory_bandwidth = {value = 50_000_000_000, source = "s", status = "measured"}
[peak_flops]
bf16 = {value = 1e12, source = "s", status = "estimated"}
)";

Hardware load(const std::string& text) {
  const test::TempDir dir;
  const std::filesystem::path path = dir / "hardware.toml";
  std::ofstream(path) << text;
  return load_hardware(path);
}

void expect_refused(std::string text, const std::string& from, const std::string& to,
                    const std::string& part) {
  text.replace(text.find(from), from.size(), to);
  test::expect_refused([&] { load(text); }, part);
}

TEST(Hardware, ShippedFilesLoad) {
  for (const auto& entry : std::filesystem::directory_iterator(MOGE_SOURCE_DIR "/configs/hardware")) {
    const Hardware h = load_hardware(entry.path());
    EXPECT_GT(h.peak_16bit(), h.memory_bandwidth.value) << entry.path();
  }
}

TEST(Hardware, ReadsFigures) {
  const Hardware h = load(kGood);
  EXPECT_EQ(h.name, "m");
  EXPECT_EQ(h.memory_bandwidth.value, 50e9);
  EXPECT_EQ(h.memory_bandwidth.status, "measured");
  EXPECT_EQ(h.peak(DType::kBF16), 1e12);
  EXPECT_THROW(h.peak(DType::kI8), UsageError);
}

TEST(Hardware, RefusesBrokenFiles) {
  expect_refused(kGood, "name = \"m\"", "", "'name'");
  expect_refused(kGood, "memory_bandwidth", "memory_bandwith", "did you mean 'memory_bandwidth'?");
  expect_refused(kGood, "8e9", "-8e9", "a number 'value' from");
  expect_refused(kGood, "8e9", "\"8e9\"", "a number 'value' from");
  for (const char* value : {"nan", "inf", "1e-300", "1e300"})
    expect_refused(kGood, "8e9", value, "a number 'value' from");
  expect_refused(kGood, "measured", "believed", "status 'believed'");
  expect_refused(kGood, "bf16 =", "bf32 =", "'bf32'");
  expect_refused(kGood, "[peak_flops]", "[peak_flops", ".toml:4:");
  EXPECT_THROW(load_hardware("/no/such/file.toml"), FileError);
}

constexpr const char* kLinked = R"(name = "m"
devices_per_card = 2
memory_bytes = {value = 8e9, source = "s", status = "datasheet"}
memory_bandwidth = {value = 50_000_000_000, source = "s", status = "measured"}
[peak_flops]
f16 = {value = 1e12, source = "s", status = "estimated"}
[[interconnect]]
name = "mesh"
kind = "mesh"
devices = 4
bandwidth = {value = 28e9, source = "s", status = "quoted"}
[[interconnect]]
name = "net"
kind = "switch"
unit_devices = 4
bandwidth = {value = 25e9, source = "s", status = "prior"}
[matmul]
units = 20
row_step = 16
tile_rows = 128
tile_cols = 128
source = "s"
status = "estimated"
)";

TEST(Hardware, ReadsInterconnectAndTiles) {
  const Hardware h = load(kLinked);
  EXPECT_EQ(h.devices_per_card, 2);
  EXPECT_EQ(h.peak_16bit(), 1e12);
  ASSERT_EQ(h.interconnect.size(), 2U);
  EXPECT_EQ(h.interconnect[0].kind, LinkLevel::Kind::kMesh);
  EXPECT_EQ(h.interconnect[0].devices, 4);
  EXPECT_EQ(h.interconnect[1].devices, 0);
  EXPECT_EQ(h.interconnect[1].unit_devices, 4);
  ASSERT_TRUE(h.matmul.has_value());
  EXPECT_EQ(h.matmul->units, 20);
}

TEST(Hardware, SustainedFlopsAreBelowThePeak) {
  std::string text = kGood;
  EXPECT_TRUE(load(text).sustained_flops.empty());
  text += "[sustained_flops]\nbf16 = {value = 8e11, source = \"s\", status = \"measured\"}\n";
  EXPECT_EQ(load(text).sustained_flops.at(DType::kBF16).value, 8e11);
  expect_refused(text, "8e11", "2e12", "above its peak_flops");
}

TEST(Hardware, RefusesContradictoryInterconnects) {
  expect_refused(kLinked, "\"mesh\"\ndevices", "\"ring\"\ndevices", "kind 'ring'");
  expect_refused(kLinked, "devices = 4\n", "", "a mesh needs 'devices'");
  expect_refused(kLinked, "devices = 4\n", "devices = 4\nunit_devices = 2\n", "a mesh joins single devices");
  expect_refused(kLinked, "unit_devices = 4", "unit_devices = 4\ndevices = 6",
                 "not a multiple of unit_devices");
  expect_refused(kLinked, "unit_devices = 4", "unit_devices = 3\ndevices = 6",
                 "expected a multiple of the 4");
  expect_refused(kLinked, "kind = \"mesh\"\ndevices = 4", "kind = \"switch\"", "joins any number of devices");
  expect_refused(kLinked, "28e9", "0", "a number 'value' from");
  expect_refused(kLinked, "tile_rows = 128", "tile_rows = 100", "not a multiple of row_step");
  expect_refused(kLinked, "units = 20", "units = 0", "units");
}

}  // namespace
}  // namespace moge::spec
