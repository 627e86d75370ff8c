// Whether a model's memory plan fits, asked before anything is allocated.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "core/exec_context.h"
#include "core/memory_text.h"
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
/// Layers of a model of `config`; `total` is the plan of such a config, in bytes.
Fewer fewer_layers(const spec::ModelConfig& config, std::function<int64_t(const spec::ModelConfig&)> total);
/// A context, of fewer than `context` tokens; `total` is the plan with one of n tokens.
Fewer shorter_context(int64_t context, std::function<int64_t(int64_t n)> total);

/// Throws OutOfMemoryError when the `parts` of a plan, weights first, are more than `free` together: the
/// parts, what is free where and by how much it is too little, and which part is too large (the weights, or
/// else the largest other). Then what would fit: the most of the first of `fewer` (at least one) of which
/// some does.
void check_fits(const ExecContext& ctx, std::span<const MemoryPart> parts, int64_t free,
                std::span<const Fewer> fewer);

}  // namespace moge::model
