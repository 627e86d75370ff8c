// One sequence over a Runner of one row: on a GPU, or on the CPU with the weights of serving.
#pragma once
#include <vector>

#include "engine/runner.h"
#include "engine/sequence.h"

namespace moge::engine {

class DeviceSequence : public Sequence {
 public:
  /// A Runner of one row; `plan`: its memory plan for these arguments, where it is known.
  DeviceSequence(ExecContext ctx, model::ServingModel model, const RunnerConfig& limits,
                 std::optional<RunnerPlan> plan = {});

  const spec::ModelConfig& config() const override { return runner_.config(); }
  int64_t context() const override { return runner_.limits().context; }
  int64_t max_batch_tokens() const override { return runner_.limits().max_batch_tokens; }
  std::string memory_plan_text() const override { return runner_.memory_plan().str(); }
  int64_t memory_bytes() const override { return runner_.memory_plan().total(); }
  int64_t decode_read_bytes(int64_t cached_tokens) const override;

  const std::vector<int32_t>& tokens() const override { return tokens_; }
  void truncate(int64_t num_tokens) override;
  void start_sampling(const SamplingParams& params, std::span<const int32_t> prompt) override;
  void append(std::span<const int32_t> tokens, bool last) override;
  int32_t draw() override;

 private:
  Runner runner_;
  std::vector<int32_t> tokens_;
  int32_t drawn_ = -1;  // what decode() goes on from
};

}  // namespace moge::engine
