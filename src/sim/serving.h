// A discrete-event run of a continuous-batching scheduler over a trace, one event a step. The policy is that
// of the engine: first come, first served; every step has a budget of tokens that running requests spend
// first (decoding ones a token each, unfinished prompts a chunk) and waiting ones after them; keys and values
// lie in blocks, and when no block is free the request that was admitted last gives its own up and is
// computed anew later. No prefix is shared.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/thread_pool.h"
#include "sim/trace.h"

namespace moge::sim {

/// What one step computes.
struct ServingStep {
  int64_t decode_requests = 0;
  int64_t decode_positions = 0;  ///< summed over them: cached positions, their own new one included
  int64_t prefill_tokens = 0;
  int64_t prefill_positions = 0;  ///< summed over those tokens: positions that each attends to
  int64_t prefill_ends = 0;       ///< prompts whose last chunk this is
};
/// Seconds of a step; finite and positive. Called from several threads.
using StepTime = std::function<double(const ServingStep&)>;

struct SchedulerPolicy {
  int64_t max_step_tokens = 2048;
  int64_t max_running = 256;  ///< requests
  int64_t block_tokens = 16;
  int64_t cache_tokens = 0;  ///< capacity; whole blocks count
  /// Attention replicas (DP) that hold equal parts of the cache: a request must fit in one part. Otherwise
  /// the cache counts as one pool.
  int64_t cache_parts = 1;
  /// K tokens drafted for each decoding request and step, each right with probability `acceptance` if those
  /// before it were. The cache needs room for all K + 1.
  int64_t draft_tokens = 0;
  double acceptance = 0;
  uint64_t seed = 0;  ///< of what the drafts come to

  /// Throws UsageError for values that are not positive.
  void validate() const;
};

/// Of a request, in seconds since the trace's start.
struct Served {
  double first_token_s = 0;
  double finish_s = 0;
};

struct TimelinePoint {
  double time_s = 0;
  int64_t waiting = 0;
  int64_t running = 0;
  int64_t used_blocks = 0;
};

struct ServingRun {
  std::vector<Served> served;  ///< as in the trace
  double end_s = 0;            ///< when the last request was done
  double busy_s = 0;           ///< the sum of the steps
  int64_t steps = 0;
  int64_t computed_tokens = 0;  ///< of prompts and answers, again after a preemption
  int64_t preemptions = 0;
  int64_t max_waiting = 0;
  double mean_waiting = 0;              ///< over time
  double mean_decoding = 0;             ///< requests in a step that decodes any
  double mean_block_use = 0;            ///< over time, of all blocks
  std::vector<TimelinePoint> timeline;  ///< at most kMaxTimeline, evenly spaced in steps
};
inline constexpr size_t kMaxTimeline = 1024;

/// Runs the whole trace (sorted by arrival, not empty). Throws UsageError for a request that can never run:
/// its tokens need more than the whole cache (the message says by how much).
ServingRun simulate_serving(std::span<const Request> trace, const SchedulerPolicy& policy,
                            const StepTime& step_time);

/// The trace dealt out to `replicas` machines in turn, each with its own scheduler; what is summed up is that
/// of all, means are over them. `timeline` is the first one's.
ServingRun simulate_replicas(std::span<const Request> trace, const SchedulerPolicy& policy,
                             const StepTime& step_time, int64_t replicas, ThreadPool& pool);

}  // namespace moge::sim
