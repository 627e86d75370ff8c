// write_roundtrip CASE OUT [STEPS]: what check_roundtrip.py and tests/e2e/test_roundtrip.py compare. Trains a
// case of this folder for its ten steps, or fewer, in the precision of its checkpoint, writes OUT/model as
// `moge train` does, reads that back, and writes OUT/logits.safetensors.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "core/files.h"
#include "io/safetensors_writer.h"
#include "train/checkpoint.h"
#include "train/golden_case.h"

namespace moge::train {
namespace {

namespace fs = std::filesystem;

void train(GoldenCase& golden, ExecContext ctx, const fs::path& model, int64_t steps) {
  const auto step = golden.step(ctx, golden.dir, spec::load_model_config(golden.dir).torch_dtype);
  for (int64_t s = 0; s < std::min(steps, golden.get("losses").dim(0)); ++s) {
    const MicroBatch batch = golden.batch(s % 2);
    StepResult result = step->compute_gradients({&batch, 1});
    step->update(result, golden.json["optimizer"]["lr"]);
  }
  const fs::path tokenizer = model.parent_path() / "no-tokenizer";  // ids are all that is needed
  fs::create_directories(tokenizer);
  save_model(*step, model, tokenizer);
}

void write_logits(GoldenCase& golden, ExecContext ctx, const fs::path& model, const fs::path& out) {
  const auto step = golden.step(ctx, model, DType::kF32);
  const MicroBatch batch = golden.batch(0);
  step->evaluate(batch);
  const OwnedTensor logits = logits_of(*step, batch.targets.dim(0));
  const std::vector<std::pair<std::string, Tensor>> tensors = {{"tokens", batch.batch.tokens},
                                                               {"positions", batch.batch.positions},
                                                               {"cu_seqlens", batch.batch.cu_seqlens},
                                                               {"logits", logits}};
  std::vector<io::TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.dtype, tensor.shape});
  atomic_write_file(out, [&](FileWriter& file) {
    io::SafetensorsWriter writer(file, specs);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
    writer.finish();
  });
}

}  // namespace
}  // namespace moge::train

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return std::fputs("usage: write_roundtrip CASE OUT [STEPS]\n", stderr), 2;
  const std::filesystem::path out = argv[2];
  moge::ThreadPool pool;
  moge::ExecContext ctx;
  ctx.pool = &pool;
  moge::train::GoldenCase golden(argv[1]);
  moge::train::train(golden, ctx, out / "model", argc == 4 ? std::atol(argv[3]) : 10);
  moge::train::write_logits(golden, ctx, out / "model", out / "logits.safetensors");
}
