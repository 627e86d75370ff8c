// The config.json files of the golden checkpoints, some of them as transformers writes them, and the count of
// parameters against what the safetensors files beside them hold.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "spec/cost.h"
#include "spec/model_config.h"

namespace moge::spec {
namespace {

namespace fs = std::filesystem;

/// Bytes of tensor data in a safetensors file: all that follows the u64 header size and the header.
int64_t tensor_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  char raw[8] = {};
  file.read(raw, sizeof raw);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, raw, sizeof raw);
  return static_cast<int64_t>(fs::file_size(path) - sizeof raw - header_bytes);
}

TEST(GoldenModels, ParseAndHaveTheParametersOfTheirFiles) {
  int num_models = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(MOGE_SOURCE_DIR "/tests/golden/models")) {
    SCOPED_TRACE(entry.path().filename().string());
    const ModelConfig config = load_model_config(entry.path());
    const int64_t element_bytes = config.torch_dtype == DType::kF32 ? 4 : 2;
    EXPECT_EQ(parameters(config) * element_bytes, tensor_bytes(entry.path() / "model.safetensors"));
    ++num_models;
  }
  EXPECT_GE(num_models, 9);
}

}  // namespace
}  // namespace moge::spec
