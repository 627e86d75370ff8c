// Whether a model's memory plan fits, asked before anything is allocated.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/exec_context.h"
#include "spec/model_config.h"

namespace moge::model {

/// What ctx's device can still give: its backend's memory, or the CPU's.
int64_t free_bytes(const ExecContext& ctx);

/// What a plan may have less of, to fit: 1 to `most` of something.
struct Fewer {
  int64_t most;                                ///< 0: there is nothing smaller
  std::function<int64_t(int64_t n)> total;     ///< bytes of the plan with n of it, which grow with n
  std::function<std::string(int64_t n)> text;  ///< "3 sequences of 256 tokens"
};

/// Throws OutOfMemoryError when a plan of `need` bytes for a model of `config` is larger than `free`: its
/// `parts`, as the plan prints them, what is free where and by how much it is too little. Then what would
/// fit: the most of `fewer`, or else how many layers; `total` is the plan of such a config, in bytes.
void check_fits(const ExecContext& ctx, const std::string& parts, int64_t need, int64_t free,
                const Fewer& fewer, const spec::ModelConfig& config,
                const std::function<int64_t(const spec::ModelConfig&)>& total);

}  // namespace moge::model
