#include "io/hf_checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>

#include "core/buffer.h"
#include "core/error.h"
#include "refusal.h"
#include "temp_dir.h"

namespace moge::io {
namespace {

using test::refusal;
using test::TempDir;

namespace fs = std::filesystem;

const fs::path kLlama = MOGE_SOURCE_DIR "/tests/io/fixtures/sharded_llama";

void expect_refused(const auto& fn, const std::string& part) {
  const std::string message = refusal(fn);
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

/// A copy of the fixture with one file changed.
void copy_llama(const fs::path& to, const std::string& file, const std::string& from_text,
                const std::string& to_text) {
  fs::copy(kLlama, to);
  std::string text = read_text_file(to / file);
  const size_t at = text.find(from_text);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, from_text.size(), to_text);
  std::ofstream(to / file, std::ios::binary) << text;
}

TEST(CheckpointReader, ReadsShardsThatTransformersWrote) {
  CheckpointReader reader(kLlama);
  EXPECT_EQ(reader.names().size(), 21U);
  const Tensor down = reader.take("model.layers.1.mlp.down_proj.weight", {16, 24});
  const auto values = elements<float>(down);
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  EXPECT_NEAR(sum, -0.20798696375641157,
              1e-12);  // make_fixtures.py prints it; doubles summed in another order
  ThreadPool pool(2);
  EXPECT_EQ(reader.verify(pool), 0);
  EXPECT_NO_THROW(reader.check_finite(pool));
  EXPECT_EQ(spec::load_model_config(kLlama).num_key_value_heads, 2);
}

TEST(CheckpointReader, IsStrictAboutTensors) {
  std::map<std::string, Shape> shapes;
  for (const fs::directory_entry& entry : fs::directory_iterator(kLlama)) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(entry.path());
    for (const TensorInfo& info : file.tensors()) shapes[info.name] = info.shape;
  }
  CheckpointReader reader(kLlama);
  expect_refused(
      [&] {
        reader.take("model.layers.1.mlp.down_proj.weight", {24, 16});
      },
      "expected shape [24, 16], got [16, 24]");
  expect_refused(
      [&] {
        reader.take("model.layers.1.mlp.downproj.weight", {16, 24});
      },
      "tensor 'model.layers.1.mlp.downproj.weight' is missing; did you mean "
      "'model.layers.1.mlp.down_proj.weight'?");
  expect_refused([&] { reader.finish(); }, "21 tensors that the model does not have: lm_head.weight, ");
  for (const std::string& name : reader.names()) {
    if (name != "model.norm.weight") reader.take(name, shapes.at(name));
  }
  expect_refused([&] { reader.finish(); }, "1 tensor that the model does not have: model.norm.weight");
  reader.take("model.norm.weight", {16});
  EXPECT_NO_THROW(reader.finish());
}

TEST(CheckpointReader, RefusesBrokenDirectories) {
  const TempDir dir;
  expect_refused([&] { CheckpointReader(dir / "absent"); }, "expected a directory");
  fs::create_directories(dir / "empty");
  expect_refused([&] { CheckpointReader(dir / "empty"); }, "has neither model.safetensors nor");

  const std::string index = "model.safetensors.index.json";
  copy_llama(dir / "escape", index, "model-00001-of-00003.safetensors", "../sharded/model.safetensors");
  expect_refused([&] { CheckpointReader(dir / "escape"); }, "expected a plain file name");
  copy_llama(dir / "moved", index, "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors");
  expect_refused([&] { CheckpointReader(dir / "moved"); }, "is not in model-00002-of-00003.safetensors");
  copy_llama(dir / "renamed", index, "\"lm_head.weight\"", "\"lm_head.wait\"");
  expect_refused([&] { CheckpointReader(dir / "renamed"); }, "tensor 'lm_head.wait' is not in");
  copy_llama(dir / "cut", index, "\"model.norm.weight\": \"model-00003-of-00003.safetensors\"",
             "\"model.layers.0.input_layernorm.weight\": \"model-00001-of-00003.safetensors\"");
  expect_refused([&] { CheckpointReader(dir / "cut"); }, "duplicate JSON key");
  copy_llama(dir / "gone", index, "weight_map", "weightmap");
  expect_refused([&] { CheckpointReader(dir / "gone"); },
                 "key 'weight_map' is missing; did you mean 'weightmap'?");
  fs::copy(kLlama, dir / "shard");
  fs::remove(dir / "shard" / std::string("model-00002-of-00003.safetensors"));
  expect_refused([&] { CheckpointReader(dir / "shard"); }, "model-00002-of-00003.safetensors");
  fs::copy(kLlama, dir / "truncated");
  fs::resize_file(dir / "truncated" / std::string("model-00002-of-00003.safetensors"), 5000);
  expect_refused([&] { CheckpointReader(dir / "truncated"); }, "(truncated)");
}

spec::ModelConfig tiny_config() {
  return spec::load_model_config(kLlama);
}

const std::vector<TensorSpec>& specs() {
  static const std::vector<TensorSpec> specs = {{"a", DType::kBF16, {64, 32}},
                                                {"b", DType::kF32, {100}},
                                                {"c.weight", DType::kBF16, {16, 8}},
                                                {"d", DType::kF32, {1000}}};
  return specs;
}

/// Writes specs() from one block of numbers.
void write_all(CheckpointWriter& writer, const Tensor& block) {
  writer.write("d", block.view({8, 500}).slice(0, 0, 2).view({1000}));
  writer.write("a", block.view({80, 50}).slice(0, 0, 64).slice(1, 0, 32));
  writer.write("b", block.view({40, 100}).slice(0, 7, 8).view({100}));
  writer.write("c.weight", block.view({40, 100}).slice(0, 0, 16).slice(1, 0, 8));
}

TEST(CheckpointWriter, RoundTripInShards) {
  const TempDir dir;
  const OwnedTensor block(DType::kF32, {4000});
  for (int64_t i = 0; i < 4000; ++i) block->ptr<float>()[i] = static_cast<float>(i) * 0.25F;
  std::ofstream(dir / "tokenizer.json") << "{}";
  for (const int64_t shard_bytes : {int64_t{1} << 30, int64_t{4500}, int64_t{1}}) {
    const fs::path out = dir / str("out-", shard_bytes);
    {
      CheckpointWriter writer(out, tiny_config(), specs(), {.max_shard_bytes = shard_bytes});
      EXPECT_FALSE(fs::exists(out));
      writer.copy_file(dir / "tokenizer.json");
      write_all(writer, block);
      writer.finish();
    }
    EXPECT_TRUE(fs::exists(out / "tokenizer.json"));
    EXPECT_EQ(fs::exists(out / "model.safetensors"), shard_bytes > 5000);
    EXPECT_EQ(fs::exists(out / "model-00004-of-00004.safetensors"), shard_bytes == 1);
    EXPECT_EQ(spec::load_model_config(out), tiny_config());
    CheckpointReader reader(out);
    ThreadPool pool(2);
    EXPECT_EQ(reader.verify(pool), 4);
    const Tensor a = reader.take("a", {64, 32});
    for (int64_t i = 0; i < 64; ++i) {
      for (int64_t j = 0; j < 32; ++j)
        ASSERT_EQ(a.ptr<BF16>()[i * 32 + j].bits, to_bf16(block->ptr<float>()[i * 50 + j]).bits);
    }
    EXPECT_EQ(reader.take("b", {100}).ptr<float>()[99], 799 * 0.25F);
    EXPECT_EQ(reader.take("d", {1000}).ptr<float>()[999], 999 * 0.25F);
    reader.take("c.weight", {16, 8});
    EXPECT_NO_THROW(reader.finish());
  }
}

TEST(CheckpointWriter, LeavesNothingUnfinished) {
  const TempDir dir;
  const OwnedTensor block(DType::kF32, {4000});
  {
    CheckpointWriter writer(dir / "out", tiny_config(), specs());
    writer.write("b", block->view({40, 100}).slice(0, 7, 8).view({100}));
    EXPECT_THROW(writer.finish(), Error);
    EXPECT_THROW(writer.write("e", block), Error);
  }
  EXPECT_TRUE(fs::is_empty(dir / ""));
  {
    CheckpointWriter writer(dir / "out", tiny_config(), specs());
    write_all(writer, block);
    writer.finish();
  }
  EXPECT_THROW(CheckpointWriter(dir / "out", tiny_config(), specs()), FileError);
  CheckpointWriter again(dir / "out", tiny_config(), specs(),
                         {.existing = AtomicDirectory::Existing::kReplace});
  write_all(again, block);
  again.finish();
  EXPECT_NO_THROW(CheckpointReader(dir / "out"));
  EXPECT_THROW(CheckpointWriter("/proc/no-such-place/out", tiny_config(), specs()), FileError);
}

TEST(CheckpointWriter, SurvivesAFullDisk) {
  const TempDir dir;
  const OwnedTensor block(DType::kF32, {4000});
  // A limit on the file size fails like a full disk does, once the signal is ignored.
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit low{.rlim_cur = 4096, .rlim_max = old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &low);
  const std::string message = refusal([&] {
    CheckpointWriter writer(dir / "out", tiny_config(), specs());
    write_all(writer, block);
    writer.finish();
  });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_NE(message.find("cannot write"), std::string::npos) << message;
  EXPECT_TRUE(fs::is_empty(dir / ""));
}

TEST(CheckpointReader, FindsNaN) {
  const TempDir dir;
  const OwnedTensor block(DType::kF32, {4000});
  block->ptr<float>()[10 * 50 + 3] = std::numeric_limits<float>::quiet_NaN();  // in both a and d
  {
    CheckpointWriter writer(dir / "out", tiny_config(), specs());
    write_all(writer, block);
    writer.finish();
  }
  CheckpointReader reader(dir / "out");
  ThreadPool pool(2);
  expect_refused([&] { reader.check_finite(pool); }, "tensor 'a' has a NaN or infinity at [10, 3]");
}

}  // namespace
}  // namespace moge::io
