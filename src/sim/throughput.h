// Throughput against latency, as lines over the batch size: what a report draws, and a table of it.
#pragma once
#include <string>
#include <vector>

#include "sim/chart.h"
#include "sim/plan_search.h"

namespace moge::sim {

/// What a line's points have in common.
struct ThroughputSetup {
  enum class Stage { kDecode, kPrefill };
  Stage stage = Stage::kDecode;
  double length = 2048;  ///< decode: cached positions of each request; prefill: tokens of a prompt
  int64_t draft_tokens = 0;
  double acceptance = 0;
  double cards = 1;             ///< throughput counts per card
  double max_latency_ms = 1e4;  ///< a line ends behind it
};

/// x: ms (decode: per output token; prefill: to the first token), y: tokens/s a card; a point for each batch
/// size 1, 1.5, 2, 3, 4, 6, 8, ... (whole ones) that some plan has memory for, on the fastest such plan.
/// Empty if not even one request fits.
Series throughput_curve(const std::string& name, const PlanSearch& search, const ThroughputSetup& setup);

/// One line for each plan that is fastest at some batch size, `most` at most.
std::vector<Series> plan_curves(const PlanSearch& search, const ThroughputSetup& setup, size_t most);

}  // namespace moge::sim
