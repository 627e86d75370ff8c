#include "train/schedule.h"

#include <cmath>
#include <numbers>

#include "core/error.h"

namespace moge::train {

PhaseStep phase_of(const std::vector<Phase>& phases, int64_t step) {
  int64_t left = step;
  for (size_t i = 0; i < phases.size(); ++i) {
    if (left < phases[i].steps) return {i, left};
    left -= phases[i].steps;
  }
  throw Error(str("step ", step, " is past the end of the schedule (", total_steps(phases), " steps)"));
}

int64_t total_steps(const std::vector<Phase>& phases) {
  int64_t sum = 0;
  for (const Phase& p : phases) sum += p.steps;
  return sum;
}

double learning_rate(const Phase& p, int64_t step) {
  if (step < p.warmup_steps)
    return p.lr * static_cast<double>(step + 1) / static_cast<double>(p.warmup_steps);
  // The last update of the phase runs at final_lr.
  const auto fraction_of = [&](int64_t begin) {
    const int64_t span = p.steps - 1 - begin;
    return span <= 0 ? 1.0 : static_cast<double>(step - begin) / static_cast<double>(span);
  };
  switch (p.decay) {
    case Decay::kConstant:
      return p.lr;
    case Decay::kCosine: {
      const double x = fraction_of(p.warmup_steps);
      return p.final_lr + (p.lr - p.final_lr) * 0.5 * (1 + std::cos(std::numbers::pi * x));
    }
    case Decay::kWsd: {
      const auto decay_steps = static_cast<int64_t>(p.decay_fraction * static_cast<double>(p.steps));
      const int64_t begin = p.steps - decay_steps;
      return step < begin ? p.lr : p.lr + (p.final_lr - p.lr) * fraction_of(begin);
    }
  }
  return p.lr;
}

}  // namespace moge::train
