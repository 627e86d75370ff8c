// What this CPU can do, read once from cpuid.
#pragma once

namespace moge {

struct CpuInfo {
  bool avx2;         ///< AVX2 + FMA + F16C
  bool avx512;       ///< F, BW, DQ, VL
  bool avx512_bf16;  ///< vdpbf16ps
  bool avx512_vnni;  ///< vpdpbusd
};

const CpuInfo& cpu_info();

}  // namespace moge
