// A case of tests/golden: a checkpoint, batches, and what the PyTorch oracle makes of them.
#pragma once
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "io/safetensors.h"
#include "train/train_step.h"

namespace moge::train {

class GoldenCase {
 public:
  /// The program that includes this defines MOGE_SOURCE_DIR.
  explicit GoldenCase(const std::string& name)
      : dir(std::filesystem::path(MOGE_SOURCE_DIR "/tests/golden/models") / name),
        json(parse_json(read_text_file(dir / "golden.json"), "golden.json")),
        file_(dir / "golden.safetensors") {}

  Tensor get(const std::string& name) {
    const io::TensorInfo* info = file_.find(name);
    check<FileError>(info != nullptr, "no tensor ", name);
    return file_.tensor(*info);
  }
  MicroBatch batch(int64_t i) {
    return {
        {.tokens = get("tokens")[i], .positions = get("positions")[i], .cu_seqlens = get("cu_seqlens")[i]},
        get("targets")[i]};
  }
  LossConfig loss() const {
    const auto& loss = json["loss"];
    return {.balance_coef = loss["aux_coef"],
            .z_coef = loss["z_coef"],
            .balance_level = loss["balance"] == "sequence" ? BalanceLevel::kSequence : BalanceLevel::kBatch};
  }
  AdamWConfig adamw() const {
    const auto& adamw = json["optimizer"];
    return {.beta1 = adamw["betas"][0],
            .beta2 = adamw["betas"][1],
            .eps = adamw["eps"],
            .weight_decay = adamw["weight_decay"],
            .clip_grad_norm = adamw["clip_grad_norm"]};
  }
  /// A step over the checkpoint in `dir`, for one batch at a time.
  std::unique_ptr<TrainStep> step(ExecContext ctx, const std::filesystem::path& checkpoint, DType dtype) {
    const spec::ModelConfig config = spec::load_model_config(checkpoint);
    return std::make_unique<TrainStep>(ctx, model::load_model(ctx, checkpoint, config, dtype), adamw(),
                                       loss(), get("tokens").dim(1), get("cu_seqlens").dim(1) - 1);
  }

  const std::filesystem::path dir;
  const nlohmann::json json;

 private:
  io::SafetensorsFile file_;
};

/// [T, V] f32: the logits of a batch that step.evaluate() has just seen.
inline OwnedTensor logits_of(TrainStep& step, int64_t num_tokens) {
  OwnedTensor logits(DType::kF32, {num_tokens, step.model().config.vocab_size});
  Workspace workspace(64 << 20);
  ExecContext ctx = step.context();
  ctx.workspace = &workspace;
  model::head_fwd(ctx, step.model().weights, step.activations(num_tokens).final, logits);
  return logits;
}

}  // namespace moge::train
