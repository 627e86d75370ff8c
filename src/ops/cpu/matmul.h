// CPU implementations of the matmul family.
#pragma once
#include <vector>

#include "ops/matmul.h"

namespace moge::ops::cpu {

std::vector<Impl<MatmulNT>> matmul_nt_impls();
std::vector<Impl<MatmulNN>> matmul_nn_impls();
std::vector<Impl<MatmulTN>> matmul_tn_impls();
std::vector<Impl<BiasBwd>> bias_bwd_impls();
Tensor pack_weight(ExecContext& ctx, const Tensor& w);

// The plain loops that end each list.
void matmul_nt_ref(ExecContext& ctx, const MatmulNT& args, std::span<std::byte>);
void matmul_nn_ref(ExecContext& ctx, const MatmulNN& args, std::span<std::byte>);
void matmul_tn_ref(ExecContext& ctx, const MatmulTN& args, std::span<std::byte>);

}  // namespace moge::ops::cpu
