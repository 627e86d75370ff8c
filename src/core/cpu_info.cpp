#include "core/cpu_info.h"

namespace moge {

const CpuInfo& cpu_info() {
  static const CpuInfo info = [] {
    __builtin_cpu_init();
    CpuInfo c{};
    c.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    c.avx512 = c.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    c.avx512_bf16 = c.avx512 && __builtin_cpu_supports("avx512bf16");
    c.avx512_vnni = c.avx512 && __builtin_cpu_supports("avx512vnni");
    return c;
  }();
  return info;
}

}  // namespace moge
