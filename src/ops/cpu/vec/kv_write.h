// Row kernel of kv_write.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

struct KvWriteKernels {
  /// y[n] = x[n] rounded to bf16.
  void (*narrow)(uint16_t* y, const float* x, int64_t n);
};
namespace avx2 {
extern const KvWriteKernels kv_write;
}
namespace avx512 {
extern const KvWriteKernels kv_write;
}

}  // namespace moge::ops::cpu::vec
