// The CPU implementations of ops/balance_loss.h, fastest first.
#pragma once
#include "ops/balance_loss.h"

namespace moge::ops::cpu {

std::vector<Impl<ExpertCounts>> expert_counts_impls();
std::vector<Impl<BalanceLoss>> balance_loss_impls();
std::vector<Impl<ZLoss>> z_loss_impls();

}  // namespace moge::ops::cpu
