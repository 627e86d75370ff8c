// Monte-Carlo of the imbalance score (arXiv 2505.21411, eq. 3 and 4, Fig. 2b). M devices hold the N experts
// in equal, contiguous parts, each of the |X| tokens of a batch chooses K of them, T_i = expert rows of
// device i:
//
//   IS(X) = (max_i T_i - min_i T_i) / |X|
//
// Plain top-K is drawn here. MoGE chooses K / M in each group, so that every T_i is |X| K / M and IS = 0.
#pragma once
#include <cstdint>

#include "core/thread_pool.h"
#include "sim/histogram.h"

namespace moge::sim {

struct ImbalanceSetup {
  int64_t num_experts = 64;         ///< N
  int64_t num_experts_per_tok = 8;  ///< K
  int64_t num_devices = 8;          ///< M
  int64_t batch_tokens = 16;        ///< |X|
  /// s: the r-th most popular expert (r = 1..N) weighs r^-s in a choice without replacement (what a router
  /// does that takes the top K of log weight + Gumbel noise), and every trial places the experts anew on the
  /// devices. 0: all alike.
  double skew = 0;
  int64_t trials = 1'000'000;
  uint64_t seed = 0;

  /// Throws UsageError: sizes that are not positive, K > N, N that M does not divide, more experts, skew or
  /// rows a device than can be counted.
  void validate() const;
  /// True where MoGE is defined: M divides K.
  bool grouped() const { return num_experts_per_tok % num_devices == 0; }
  /// |X| K / M, the T_i of a balanced batch.
  double mean_rows() const;
};

struct ImbalanceResult {
  ImbalanceSetup setup;
  Histogram spread;   ///< max T_i - min T_i; IS is this over |X|
  Histogram busiest;  ///< max T_i

  double mean() const;            ///< E[IS]
  double standard_error() const;  ///< of mean()
  double quantile(double p) const;
  double p_imbalanced() const;  ///< P(IS > 0)
  /// The ends of P(IS > 0)'s 95% Wilson interval: they say something even where all trials agree.
  double p_imbalanced_low() const;
  double p_imbalanced_high() const;
  /// E[max T_i] / mean T_i: by how much the busiest device, for which the others wait, exceeds its share.
  double straggler_factor() const;
  double straggler_standard_error() const;
};

/// The same bits for any number of threads.
ImbalanceResult simulate_imbalance(const ImbalanceSetup& setup, ThreadPool& pool);

}  // namespace moge::sim
