// Learning rates over phases: each phase warms up, holds or decays, and ends; the next begins where it says
// (arXiv 2505.21411, section 3: general, reasoning, annealing).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moge::train {

enum class Decay {
  kConstant,
  kCosine,  ///< from lr to final_lr by half a cosine over the phase
  kWsd,     ///< warm-up, stable, then linear to final_lr over the last decay_fraction of the phase
};

struct Phase {
  std::string name = "main";
  int64_t steps = 0;
  double lr = 3e-4;
  double final_lr = 0;
  int64_t warmup_steps = 0;  ///< linear from 0
  Decay decay = Decay::kCosine;
  double decay_fraction = 0.25;
  int64_t batch_tokens = 0;  ///< tokens of one optimizer step
  int64_t sequence_length = 0;
};

/// Which phase an update belongs to, and its number in it. Throws Error past the end.
struct PhaseStep {
  size_t phase_idx;
  int64_t step;
};
PhaseStep phase_of(const std::vector<Phase>& phases, int64_t step);
int64_t total_steps(const std::vector<Phase>& phases);
/// The learning rate of update `step` (0 is the first) of a phase.
double learning_rate(const Phase& phase, int64_t step);

}  // namespace moge::train
