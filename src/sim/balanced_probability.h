// P(IS = 0) of plain top-K without drawing: too rare to be seen by a Monte-Carlo for the settings that
// matter.
#pragma once
#include <optional>

#include "core/thread_pool.h"
#include "sim/imbalance.h"

namespace moge::sim {

/// The probability that every device gets the same number of rows, c = |X| K / M, exact up to rounding (about
/// 1e-15 absolute). One token's rows have the generating function e(z) / C(N, K), e(z) = [y^K] prod_i (1 + y
/// z_i)^(N/M), and a coefficient of its |X|-th power is a mean over roots of unity:
///
///   P(T = c, ..., c) = m^-M  sum over k in Z_m^M of  prod_i w^(-c k_i) (e(w^k) / C(N, K))^|X|,   w = exp(2
///   pi i / m)
///
/// m = c + 1 is enough: T_i = c modulo m means T_i >= c, and their sum is M c. The sum is invariant under
/// shifts of k and permutations of the devices, which leaves C(c + M - 1, M - 1) terms. Nothing if those are
/// too many (batches of more than about 32 tokens on 8 devices) or the setup has a skew.
std::optional<double> balanced_probability(const ImbalanceSetup& setup, ThreadPool& pool);

}  // namespace moge::sim
