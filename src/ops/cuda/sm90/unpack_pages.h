// Cache pages of other types as bf16, for products that cannot take them. Bound by bandwidth.
#pragma once
#include "core/exec_context.h"
#include "core/tensor.h"

namespace moge::ops::cuda {

/// Page i of sequence b becomes page b MP + i of `k_out` and `v_out`: elements times their row's scale, if
/// any. What lies past a sequence's length is not read: zeros in its last page, pages behind that left alone.
struct UnpackPages {
  Tensor k_out, v_out;        // [B MP, KV, PS, Dh] bf16
  Tensor k_pages, v_pages;    // [P, KV, PS, Dh] f16 | i8 | fp8_e4m3, contiguous; Dh a multiple of 16
  Tensor k_scales, v_scales;  // [P, KV, PS] f32, with eight-bit pages
  Tensor block_table;         // [B, MP] i32
  Tensor kv_lens;             // [B] i32
};

void unpack_pages(ExecContext& ctx, const UnpackPages& args);

}  // namespace moge::ops::cuda
