// Architecture search: every shape of a space on several platforms at once, each with its best plan and batch
// under a latency objective; the Pareto front; where a given shape ranks among its like. The score is
// throughput alone: nothing here knows a model's quality, so the number of layers and of active parameters
// are stated floors and bands, not results (docs/sim.md).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "sim/plan_search.h"
#include "sim/search_space.h"

namespace moge::sim {

struct Platform {
  std::string name;
  Device device;
  int64_t cards = 1;
  double max_step_s = 0;  ///< TPOT objective
};

struct SearchOptions {
  Precision precision;
  double context = 2048;
  PlanSpace plans = PlanSpace::kServed;
  double skew = 0;
};

/// What a platform makes of a shape; zeros where it cannot serve one request within the objective.
struct PlatformScore {
  double tokens_per_s_per_card = 0;
  double step_s = 0;
  int64_t requests = 0;
};

struct ShapeResult {
  int64_t index = 0;  ///< in shapes()
  Shape shape;
  double parameters = 0;
  double active_parameters = 0;
  std::vector<PlatformScore> platforms;

  /// Geometric mean of the platforms' throughputs.
  double score() const;
};

ShapeResult evaluate_shape(const SearchSpace& space, const Shape& shape, int64_t index,
                           const std::vector<Platform>& platforms, const SearchOptions& options);

/// Shapes begin..end-1 in parallel; the same results for any number of threads.
std::vector<ShapeResult> evaluate_shapes(const SearchSpace& space, const std::vector<Shape>& all,
                                         int64_t begin, int64_t end, const std::vector<Platform>& platforms,
                                         const SearchOptions& options, ThreadPool& pool);

/// Indices into `results` of those that no other one equals or beats in every platform's throughput and in
/// active parameters (more is better: the stand-in for quality), in falling score. Only shapes of at least
/// `depth_floor` layers that every platform can serve take part.
std::vector<size_t> pareto_front(const std::vector<ShapeResult>& results, int64_t depth_floor);

/// Where `shape` stands by score among shapes with as many layers and with active parameters within `band`
/// (0.05: 5%) of its own. rank 0: it is not among the results.
struct Rank {
  int64_t rank = 0;
  int64_t of = 0;
};
Rank rank_of(const std::vector<ShapeResult>& results, const Shape& shape, double band);

}  // namespace moge::sim
