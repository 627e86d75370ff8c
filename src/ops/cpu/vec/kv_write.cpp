#include "ops/cpu/vec/kv_write.h"

#include "ops/cpu/vec/bf16.h"

namespace moge::ops::cpu::vec::MOGE_ISA {
namespace {

void narrow(uint16_t* y, const float* x, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t lanes) { store_bf16_n(y + i, load_n(x + i, lanes), lanes); });
}

}  // namespace

extern const KvWriteKernels kv_write{narrow};

}  // namespace moge::ops::cpu::vec::MOGE_ISA
