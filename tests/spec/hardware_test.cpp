#include "spec/hardware.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"

namespace moge::spec {
namespace {

constexpr const char* kGood = R"(name = "m"
memory_bytes = {value = 8e9, source = "s", status = "datasheet"}
memory_bandwidth = {value = 50_000_000_000, source = "s", status = "measured"}
[peak_flops]
bf16 = {value = 1e12, source = "s", status = "estimated"}
)";

Hardware load(const std::string& text) {
  const auto path = std::filesystem::temp_directory_path() / str("moge-hardware-", ::getpid(), ".toml");
  std::ofstream(path) << text;
  const struct Remove {
    const std::filesystem::path& path;
    ~Remove() { std::filesystem::remove(path); }
  } remove{path};
  return load_hardware(path);
}

void expect_refused(std::string text, const std::string& from, const std::string& to,
                    const std::string& part) {
  text.replace(text.find(from), from.size(), to);
  try {
    load(text);
    ADD_FAILURE() << "accepted, expected: " << part;
  } catch (const FileError& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
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
  expect_refused(kGood, "8e9", "-8e9", "positive number 'value'");
  expect_refused(kGood, "8e9", "\"8e9\"", "positive number 'value'");
  expect_refused(kGood, "measured", "believed", "status 'believed'");
  expect_refused(kGood, "bf16 =", "bf32 =", "'bf32'");
  expect_refused(kGood, "[peak_flops]", "[peak_flops", ".toml:4:");
  EXPECT_THROW(load_hardware("/no/such/file.toml"), FileError);
}

}  // namespace
}  // namespace moge::spec
