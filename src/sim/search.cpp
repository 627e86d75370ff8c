#include "sim/search.h"

#include <algorithm>
#include <cmath>

#include "spec/cost.h"

namespace moge::sim {

namespace {

bool servable(const ShapeResult& r) {
  return std::ranges::all_of(r.platforms, [](const PlatformScore& p) { return p.requests > 0; });
}

/// At least as good in everything, and better in something.
bool dominates(const ShapeResult& a, const ShapeResult& b) {
  bool better = a.active_parameters > b.active_parameters;
  if (a.active_parameters < b.active_parameters) return false;
  for (size_t i = 0; i < a.platforms.size(); ++i) {
    const double x = a.platforms[i].tokens_per_s_per_card;
    const double y = b.platforms[i].tokens_per_s_per_card;
    if (x < y) return false;
    better = better || x > y;
  }
  return better;
}

}  // namespace

double ShapeResult::score() const {
  double log_sum = 0;
  for (const PlatformScore& p : platforms) {
    if (p.tokens_per_s_per_card <= 0) return 0;
    log_sum += std::log(p.tokens_per_s_per_card);
  }
  return platforms.empty() ? 0 : std::exp(log_sum / static_cast<double>(platforms.size()));
}

ShapeResult evaluate_shape(const SearchSpace& space, const Shape& shape, int64_t index,
                           const std::vector<Platform>& platforms, const SearchOptions& options) {
  const spec::ModelConfig config = model_of(space, shape);
  ShapeResult result{.index = index,
                     .shape = shape,
                     .parameters = static_cast<double>(spec::parameters(config)),
                     .active_parameters = static_cast<double>(spec::active_parameters(config)),
                     .platforms = {}};
  for (const Platform& platform : platforms) {
    PlatformScore score;
    const int64_t devices = platform.cards * platform.device.hardware.devices_per_card;
    if (!serving_plans(config, platform.device.hardware, devices, options.plans).empty()) {
      const PlanSearch search(config, platform.device, options.precision, devices, options.plans,
                              options.skew);
      const ServingGoal goal{.context = options.context, .max_step_s = platform.max_step_s};
      if (const auto best = search.best_batch(goal))
        score = {best->tokens_per_s / static_cast<double>(platform.cards), best->choice.seconds,
                 best->requests};
    }
    result.platforms.push_back(score);
  }
  return result;
}

std::vector<ShapeResult> evaluate_shapes(const SearchSpace& space, const std::vector<Shape>& all,
                                         int64_t begin, int64_t end, const std::vector<Platform>& platforms,
                                         const SearchOptions& options, ThreadPool& pool) {
  constexpr int64_t kGrain = 8;
  std::vector<ShapeResult> results(static_cast<size_t>(end - begin));
  parallel_for(pool, end - begin, kGrain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
      results[static_cast<size_t>(i)] =
          evaluate_shape(space, all[static_cast<size_t>(begin + i)], begin + i, platforms, options);
  });
  return results;
}

std::vector<size_t> pareto_front(const std::vector<ShapeResult>& results, int64_t depth_floor) {
  std::vector<size_t> order;
  for (size_t i = 0; i < results.size(); ++i)
    if (results[i].shape.num_hidden_layers >= depth_floor && servable(results[i])) order.push_back(i);
  // A dominating shape has at least as much of everything, so it comes first when sorted by one objective.
  std::ranges::sort(order, [&](size_t a, size_t b) {
    const ShapeResult& x = results[a];
    const ShapeResult& y = results[b];
    if (x.active_parameters != y.active_parameters) return x.active_parameters > y.active_parameters;
    if (x.score() != y.score()) return x.score() > y.score();
    return x.index < y.index;
  });
  std::vector<size_t> front;
  for (const size_t candidate : order)
    if (std::ranges::none_of(front, [&](size_t f) { return dominates(results[f], results[candidate]); }))
      front.push_back(candidate);
  std::ranges::sort(front, [&](size_t a, size_t b) {
    const double x = results[a].score();
    const double y = results[b].score();
    return x != y ? x > y : results[a].index < results[b].index;
  });
  return front;
}

Rank rank_of(const std::vector<ShapeResult>& results, const Shape& shape, double band) {
  const auto self = std::ranges::find_if(results, [&](const ShapeResult& r) { return r.shape == shape; });
  if (self == results.end()) return {};
  Rank rank{.rank = 1, .of = 0};
  for (const ShapeResult& r : results) {
    const bool alike = r.shape.num_hidden_layers == shape.num_hidden_layers &&
                       std::abs(r.active_parameters / self->active_parameters - 1) <= band;
    if (!alike) continue;
    ++rank.of;
    if (r.score() > self->score()) ++rank.rank;
  }
  return rank;
}

}  // namespace moge::sim
