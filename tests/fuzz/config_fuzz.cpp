// Any bytes are either refused with a FileError or a config that survives its own round trip and whose costs
// don't overflow (UBSan watches).
#include <cstdlib>

#include "core/error.h"
#include "spec/cost.h"
#include "spec/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moge::spec;
  ModelConfig config;
  try {
    config = parse_model_config({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const moge::FileError&) {
    return 0;
  }
  if (parse_model_config(config.to_json(), "round trip") != config) std::abort();
  const int64_t parameters = moge::spec::parameters(config);
  if (parameters <= 0 || active_parameters(config) > parameters) std::abort();
  if (kv_bytes_per_token(config, moge::DType::kF32) * config.max_position_embeddings <= 0) std::abort();
  flops_per_token(config, config.max_position_embeddings, Phase::kTraining);
  training_memory(config, {.micro_batch_tokens = 1, .logit_rows = 1});
  return 0;
}
