#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "core/buffer.h"
#include "core/error.h"
#include "io/safetensors_writer.h"
#include "refusal.h"
#include "temp_dir.h"

namespace moge::io {
namespace {

using test::TempDir;

const std::string kFixtures = MOGE_SOURCE_DIR "/tests/io/fixtures";

/// A file of this header and this many bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  std::string file(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data_bytes, 'x');
}

SafetensorsHeader parse(const std::string& file) {
  // An exact allocation, so that ASan sees an overread.
  const std::vector<char> bytes(file.begin(), file.end());
  return parse_safetensors_header(std::as_bytes(std::span(bytes)), "f");
}

void expect_refused(const std::string& file, const std::string& part) {
  test::expect_refused([&] { parse(file); }, part);
}

TEST(SafetensorsHeader, ReadsAHandMadeFile) {
  const SafetensorsHeader header =
      parse(file_of(R"({"b": {"dtype": "F32", "shape": [2, 1], "data_offsets": [6, 14]},
    "a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}, "__metadata__": {"k": "v"}}   )",
                    14));
  ASSERT_EQ(header.tensors.size(), 2U);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[1].shape, (Shape{2, 1}));
  EXPECT_EQ(header.metadata.at("k"), "v");
  EXPECT_TRUE(parse(file_of("{}", 0)).tensors.empty());
}

TEST(SafetensorsHeader, RefusesBrokenFraming) {
  expect_refused("", "expected at least 8 bytes, got 0");
  expect_refused("1234567", "got 7");
  expect_refused(std::string(8, '\xff'), "header of 18446744073709551615 bytes: expected at most");
  expect_refused(file_of("{}", 0).substr(0, 9), "(truncated)");
  expect_refused(file_of("", 4), "does not begin with '{'");
  expect_refused(file_of(" {}", 0), "does not begin with '{'");
  expect_refused(file_of("{\"a\": ", 0), "broken JSON");
  expect_refused(file_of("{} {}", 0), "broken JSON");
  expect_refused(file_of("{\"a\":" + std::string(5000, '['), 0), "nested deeper");
}

TEST(SafetensorsHeader, RefusesInconsistentTensors) {
  const auto one = [](const std::string& entry, size_t data_bytes) {
    return file_of("{\"t\": " + entry + "}", data_bytes);
  };
  expect_refused(one(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})", 7), "(truncated)");
  expect_refused(one(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})", 9), "the file has 9");
  expect_refused(one(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]})", 4), "takes 8 bytes");
  expect_refused(one(R"({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]})", 8), "belong to none");
  expect_refused(one(R"({"dtype": "F32", "shape": [1], "data_offsets": [8, 4]})", 8), "[begin, end]");
  expect_refused(one(R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]})", 8), "[begin, end]");
  expect_refused(one(R"({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]})", 4), "non-negative");
  expect_refused(one(R"({"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]})", 4), "non-negative");
  expect_refused(one(R"({"dtype": "F32", "shape": 1, "data_offsets": [0, 4]})", 4), "non-negative");
  expect_refused(one(R"({"dtype": "F64", "shape": [1], "data_offsets": [0, 8]})", 8),
                 "key 'dtype': expected F32");
  expect_refused(one(R"({"dtype": "F32", "shape": [1,1,1,1,1], "data_offsets": [0, 4]})", 4), "4 dimensions");
  expect_refused(one(R"({"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]})", 0),
                 "2^63");
  expect_refused(one(R"({"dtype": "F32", "shape": [4611686018427387904, 8, 0], "data_offsets": [0, 0]})", 0),
                 "2^63");
  expect_refused(one(R"({"dtype": "F32", "shape": [18446744073709551615], "data_offsets": [0, 0]})", 0),
                 "shape");
  expect_refused(one(R"({"dtype": "F32", "shape": [1]})", 4), "key 'data_offsets' is missing");
  expect_refused(one(R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "x": 1})", 4),
                 "unknown key 'x'");
  expect_refused(one("[]", 4), "expected a JSON object");
  expect_refused(file_of(R"({"__metadata__": {"k": 1}})", 0), "expected a string");
  const std::string entry = R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})";
  expect_refused(file_of("{\"t\": " + entry + ", \"t\": " + entry + "}", 4), "duplicate JSON key \"t\"");
  expect_refused(file_of("{\"t\": " + entry + ", \"u\": " + entry + "}", 8), "they overlap");
}

TEST(SafetensorsFile, ReadsWhatThePythonLibraryWrote) {
  SafetensorsFile file(kFixtures + "/dtypes.safetensors");
  EXPECT_EQ(file.tensors().size(), 10U);
  EXPECT_EQ(file.metadata().at("note"), "größe");
  const auto tensor = [&](const char* name, DType dtype, Shape shape) {
    const TensorInfo* info = file.find(name);
    EXPECT_NE(info, nullptr) << name;
    EXPECT_EQ(info->dtype, dtype) << name;
    EXPECT_EQ(info->shape, shape) << name;
    return file.tensor(*info);
  };
  const Tensor f32 = tensor("f32", DType::kF32, {2, 3});
  const Tensor bf16 = tensor("bf16", DType::kBF16, {5});
  const Tensor f16 = tensor("f16", DType::kF16, {2, 2, 2});
  const auto expected = [](int64_t i) { return static_cast<float>(i) - 2.5F; };
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(f32.ptr<float>()[i], expected(i));
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(to_f32(bf16.ptr<BF16>()[i]), expected(i));
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(to_f32(f16.ptr<F16>()[i]), expected(i));
  const Tensor i64 = tensor("i64", DType::kI64, {4});
  const Tensor i32 = tensor("i32", DType::kI32, {1, 3});
  const Tensor i8 = tensor("i8", DType::kI8, {7});
  const Tensor u8 = tensor("u8", DType::kU8, {3, 3});
  EXPECT_EQ(i64.ptr<int64_t>()[3], 9);
  EXPECT_EQ(i32.ptr<int32_t>()[2], 6);
  EXPECT_EQ(i8.ptr<int8_t>()[6], 18);
  EXPECT_EQ(u8.ptr<uint8_t>()[8], 24);
  const Tensor fp8 = tensor("fp8", DType::kFP8E4M3, {3});
  EXPECT_EQ(static_cast<uint8_t*>(fp8.data)[0], 0xc2);  // -2.5 = -1.25 x 2^1: exponent 7 + 1, mantissa 2 of 8
  EXPECT_EQ(tensor("scalar", DType::kF32, {1}).ptr<float>()[0], 1.5F);
  EXPECT_EQ(tensor("empty", DType::kF32, {0, 4}).numel(), 0);
  EXPECT_FALSE(file.verify(*file.find("f32")));  // no checksums of ours
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_THROW(SafetensorsFile("/no/such/file"), FileError);
}

TEST(SafetensorsFile, CopiesUnalignedTensors) {
  const TempDir dir;
  std::string bytes = file_of(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},)"
                              R"("b": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}})",
                              5);
  const float value = 3.25F;
  std::memcpy(bytes.data() + bytes.size() - 4, &value, 4);
  std::ofstream(dir / "u.safetensors", std::ios::binary) << bytes;
  SafetensorsFile file(dir / "u.safetensors");
  const Tensor b = file.tensor(*file.find("b"));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data) % 4, 0U);
  EXPECT_EQ(b.ptr<float>()[0], value);
}

TEST(SafetensorsWriter, WritesStridedAndConvertedTensorsInAnyOrder) {
  const TempDir dir;
  const OwnedTensor big(DType::kF32, {64, 300, 200});  // over the staging size, so it goes in pieces
  const int64_t n = big->numel();
  for (int64_t i = 0; i < n; ++i) big->ptr<float>()[i] = static_cast<float>(i % 251);
  const Tensor middle = big->slice(1, 100, 200);
  const OwnedTensor bytes(DType::kU8, {3});
  bytes->ptr<uint8_t>()[1] = 7;
  atomic_write_file(dir / "w.safetensors", [&](FileWriter& out) {
    SafetensorsWriter writer(out,
                             {{"bytes", DType::kU8, {3}},
                              {"half", DType::kBF16, {64, 100, 200}},
                              {"whole", DType::kF32, {64, 300, 200}},
                              {"row", DType::kF16, {1, 300, 200}}},
                             {{"step", "12"}});
    writer.write("whole", big);
    EXPECT_THROW(writer.write("bytes", big), ShapeError);
    EXPECT_THROW(writer.finish(), Error);
    writer.write("bytes", bytes);
    writer.write("half", middle);
    EXPECT_FALSE(writer.complete());
    writer.write("row", big->slice(0, 5, 6));
    EXPECT_THROW(writer.write("row", big->slice(0, 5, 6)), Error);
    writer.finish();
  });
  SafetensorsFile file(dir / "w.safetensors");
  EXPECT_EQ(file.metadata().at("step"), "12");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors().front().name, "whole");  // the largest element size first
  for (const TensorInfo& info : file.tensors()) {
    EXPECT_TRUE(file.verify(info));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file.tensor(info).data) % size_of(info.dtype), 0U) << info.name;
  }
  const Tensor half = file.tensor(*file.find("half"));
  for (int64_t i = 0; i < 64; ++i) {
    for (int64_t j = 0; j < 100 * 200; ++j)
      ASSERT_EQ(to_f32(half.ptr<BF16>()[i * 20000 + j]), big->ptr<float>()[i * 60000 + 20000 + j]);
  }
  EXPECT_EQ(0,
            std::memcmp(file.tensor(*file.find("whole")).data, big->data, static_cast<size_t>(big->bytes())));
  EXPECT_EQ(file.tensor(*file.find("bytes")).ptr<uint8_t>()[1], 7);
}

TEST(SafetensorsWriter, ChecksumFindsAFlippedBit) {
  const TempDir dir;
  const OwnedTensor x(DType::kF32, {8});
  atomic_write_file(dir / "c.safetensors", [&](FileWriter& out) {
    SafetensorsWriter writer(out, {{"x", DType::kF32, {8}}});
    writer.write("x", x);
    writer.finish();
  });
  std::fstream raw(dir / "c.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  raw.seekp(-3, std::ios::end);
  raw.put('\x01');
  raw.close();
  const SafetensorsFile file(dir / "c.safetensors");
  test::expect_refused([&] { file.verify(*file.find("x")); }, "tensor 'x' is corrupt");
}

TEST(SafetensorsWriter, RefusesANameTwice) {
  const TempDir dir;
  FileWriter out(dir / "d.safetensors");
  EXPECT_THROW(SafetensorsWriter(out, {{"x", DType::kF32, {8}}, {"x", DType::kF32, {8}}}), FileError);
}

}  // namespace
}  // namespace moge::io
