// Which build of a vec/ kernel this CPU can run.
#pragma once
#include "core/cpu_info.h"
#include "core/dispatch.h"

namespace moge::ops::cpu {

template <class Args>
Refusal needs_avx2(const Args&) {
  return cpu_info().avx2 ? "" : "this CPU has no AVX2 with FMA";
}
template <class Args>
Refusal needs_avx512(const Args&) {
  return cpu_info().avx512 ? "" : "this CPU has no AVX-512 (F, BW, DQ, VL)";
}
template <class Args>
Refusal supports_all(const Args&) {
  return "";
}

/// The usual list: one driver over row kernels that exist for each instruction set and as a reference.
template <class Args>
std::vector<Impl<Args>> isa_impls(decltype(Impl<Args>::run) avx512, decltype(Impl<Args>::run) avx2,
                                  decltype(Impl<Args>::run) ref,
                                  decltype(Impl<Args>::workspace_bytes) workspace_bytes = nullptr) {
  return {{"cpu.avx512", DeviceKind::kCpu, needs_avx512<Args>, avx512, workspace_bytes},
          {"cpu.avx2", DeviceKind::kCpu, needs_avx2<Args>, avx2, workspace_bytes},
          {"cpu.ref", DeviceKind::kCpu, supports_all<Args>, ref, workspace_bytes}};
}

}  // namespace moge::ops::cpu
