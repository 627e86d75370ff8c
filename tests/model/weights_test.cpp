// The fused weights under their Hugging Face names: every element has one name, and saving loads back to the
// same bits.
#include "model/weights.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "io/hf_checkpoint.h"
#include "model/loader.h"
#include "refusal.h"
#include "spec/cost.h"
#include "temp_dir.h"

namespace moge::model {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = MOGE_SOURCE_DIR "/tests/golden/models";

struct Context {
  Context() {
    ctx_.pool = &pool_;
    ctx_.workspace = &workspace_;
  }
  ThreadPool pool_{2};
  Workspace workspace_;
  ExecContext ctx_;
};

class TiedHeadTest : public testing::Test, protected Context {};

class WeightsTest : public testing::TestWithParam<std::string>, protected Context {
 protected:
  spec::ModelConfig config() const { return spec::load_model_config(kModels / GetParam()); }
  void save(const Model& model, const fs::path& dir) {
    io::CheckpointWriter writer(dir, model.config,
                                checkpoint_tensors(model.weights, model.config, DType::kF32));
    write_weights(ctx_, writer, model.weights, model.config);
    writer.finish();
  }
};

TEST_P(WeightsTest, NamesCoverEveryElementOnce) {
  const Model model = allocate_model(config(), DType::kF32);
  int64_t named = 0;
  std::set<std::string> names;
  for (const HfTensor& t : hf_tensors(model.weights, model.config)) {
    EXPECT_TRUE(names.insert(t.name).second) << t.name;
    EXPECT_EQ(t.view.numel(), t.file_shape.numel()) << t.name;
    named += t.view.numel();
    // Mark each element through its name; a second mark on the same element would show below.
    const Tensor& v = t.view;
    for (int64_t i = 0; i < v.numel(); ++i) {
      int64_t offset = 0, rest = i;
      for (int d = v.shape.ndim() - 1; d >= 0; --d) {
        offset += rest % v.dim(d) * v.stride(d);
        rest /= v.dim(d);
      }
      v.ptr<float>()[offset] += 1;
    }
  }
  EXPECT_EQ(named, spec::parameters(model.config));
  for (const Parameter& p : parameters(model.weights))
    for (const float marks : elements<float>(p.tensor)) ASSERT_EQ(marks, 1.0F) << p.name;
}

TEST_P(WeightsTest, SavingLoadsBackToTheSameBits) {
  const test::TempDir temp;
  const fs::path dir = temp / "model";
  const Model model =
      load_model(ctx_, kModels / GetParam(), spec::load_model_config(kModels / GetParam()), DType::kF32);
  init_weights(model.weights, model.config, 5, pool_);
  save(model, dir);
  const Model back = load_model(ctx_, dir, spec::load_model_config(dir), DType::kF32);
  const auto want = parameters(model.weights), got = parameters(back.weights);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    const auto a = elements<float>(want[i].tensor), b = elements<float>(got[i].tensor);
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << want[i].name;
  }
}

/// A weight that is wrong and finite: only its checksum tells.
TEST_P(WeightsTest, AFlippedBitIsRefused) {
  const test::TempDir temp;
  const fs::path dir = temp / "model";
  save(load_model(ctx_, kModels / GetParam(), spec::load_model_config(kModels / GetParam()), DType::kF32),
       dir);
  std::string bytes = read_text_file(dir / "model.safetensors");
  bytes[bytes.size() - 4] ^= 1;  // the lowest bit of the last tensor's last element
  atomic_write_file(dir / "model.safetensors", bytes);
  const std::string message =
      test::refusal([&] { load_model(ctx_, dir, spec::load_model_config(dir), DType::kF32); });
  EXPECT_NE(message.find("is corrupt: expected checksum"), std::string::npos) << message;
}

/// With tied embeddings a file may repeat the table as the head, but not contradict it.
TEST_F(TiedHeadTest, HasToRepeatTheEmbedding) {
  const spec::ModelConfig config = spec::load_model_config(kModels / "moge_2x8_k2");
  ASSERT_TRUE(config.tie_word_embeddings);
  const Model model = load_model(ctx_, kModels / "moge_2x8_k2", config, DType::kF32);
  Tensor table = model.weights.embed_tokens;
  const auto loaded_with = [&](const Tensor& head, DType dtype) {
    const test::TempDir temp;
    const fs::path dir = temp / "model";
    std::vector<io::TensorSpec> specs = checkpoint_tensors(model.weights, config, DType::kF32);
    specs.push_back({"lm_head.weight", dtype, head.shape});
    io::CheckpointWriter writer(dir, config, specs);
    write_weights(ctx_, writer, model.weights, config);
    writer.write("lm_head.weight", head);
    writer.finish();
    return test::refusal([&] { load_model(ctx_, dir, config, DType::kF32); });
  };
  EXPECT_EQ(loaded_with(table, DType::kF32), "(accepted)");
  const std::string differs = "'lm_head.weight' differs from 'model.embed_tokens.weight'";
  EXPECT_NE(loaded_with(table, DType::kBF16).find(differs), std::string::npos);
  EXPECT_NE(loaded_with(table.slice(0, 1, config.vocab_size), DType::kF32).find("expected shape"),
            std::string::npos);
  std::vector<float> other(static_cast<size_t>(table.numel()));
  std::ranges::copy(elements<float>(table), other.begin());
  other.back() += 1;
  EXPECT_NE(loaded_with(Tensor(other.data(), DType::kF32, table.shape), DType::kF32).find(differs),
            std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Cases, WeightsTest,
                         testing::Values("moge_2x8_k2", "router_scale", "llama", "qwen3_moe"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace moge::model
