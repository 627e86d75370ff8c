// Serving's products by an i8 weight in panels: 64 columns, each [K / 4, width] words of four bytes, w + 128
// each (vec/quant_panels.h), one panel after the other as in matmul_panels.h. A panel takes exactly the bytes
// of its rows, so a weight is packed in place. Only where there is AVX-512 VNNI: without, as measured,
// packing wins nothing with many rows and loses with one.
#pragma once
#include <span>

#include "core/buffer.h"
#include "ops/cpu/vec/quant_panels.h"
#include "ops/quant_matmul.h"

namespace moge::ops::cpu {

Tensor pack_quant_weight(ExecContext& ctx, const Tensor& w);

/// Its rows again.
OwnedTensor unpack_quant_weight(const Tensor& w);

int64_t quant_panels_workspace(const ExecContext& ctx, const QuantMatmul& a);
/// a.w is packed; row_ids and offsets have been checked.
void multiply_quant_panels(ExecContext& ctx, const QuantMatmul& a, std::span<std::byte> workspace);

}  // namespace moge::ops::cpu
