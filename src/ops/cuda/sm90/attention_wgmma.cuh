// Attention's two matrix products on a warpgroup (PTX ISA, "wgmma"; wgmma.cuh has the fragment of the sums):
//   scores  D[64, 128] = A[64, 16] B[128, 16]^T,  both in shared memory, rows of 128 bytes, swizzled;
//   values  D[64, n] += A[64, 16] B[16, n],       A in registers (mma.cuh's A of each warp's 16 rows), B in
//                                                 shared memory as blocks of 64 columns, each with rows of
//                                                 128 bytes, swizzled; of the last block 8 columns.
#pragma once
#include <cstdint>

#include "ops/cuda/sm90/wgmma.cuh"

namespace moge::ops::cuda {

/// Descriptor of 64-column blocks, `block_bytes` apart, of rows 128 bytes apart; shared address, a multiple
/// of 1024. Adding 128 moves it by 16 rows.
__device__ __forceinline__ uint64_t rows_descriptor(uint32_t shared, uint32_t block_bytes) {
  return operand_descriptor(shared) | uint64_t{block_bytes >> 4} << 16;
}

// score_step(d, a, b, add): d = a b^T, or d += with `add`. value_step(d, a, b): d += a b. The number of
// accumulators selects n. Descriptors by their lower halves: where these are uniform (a shuffle tells the
// compiler so), what moves them along is one uniform addition. 0x40000040 is operand_descriptor()'s upper
// half.
#define MOGE_D8(i)                                                                            \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])

// clang-format off: operand lists
__device__ __forceinline__ void score_step(float (&d)[64], uint32_t a, uint32_t b, bool add) {
  asm volatile(
      "{.reg .pred p; .reg .b64 x, y; setp.ne.b32 p, %66, 0; mov.b64 x, {%64, 0x40000040}; mov.b64 y, {%65, "
      "0x40000040}; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, x, y, p, 1, 1, 0, 0;}"
      : MOGE_D8(0), MOGE_D8(8), MOGE_D8(16), MOGE_D8(24), MOGE_D8(32), MOGE_D8(40), MOGE_D8(48), MOGE_D8(56)
      : "r"(a), "r"(b), "r"(static_cast<int>(add)));
}
__device__ __forceinline__ void value_step(float (&d)[36], const uint32_t* a, uint32_t b) {
  asm volatile(
      "{.reg .pred p; .reg .b64 y; setp.eq.u32 p, 0, 0; mov.b64 y, {%40, 0x40000040}; "
      "wgmma.mma_async.sync.aligned.m64n72k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35"
      "}, {%36, %37, %38, %39}, y, p, 1, 1, 1;}"
      : MOGE_D8(0), MOGE_D8(8), MOGE_D8(16), MOGE_D8(24), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
}
__device__ __forceinline__ void value_step(float (&d)[68], const uint32_t* a, uint32_t b) {
  asm volatile(
      "{.reg .pred p; .reg .b64 y; setp.eq.u32 p, 0, 0; mov.b64 y, {%72, 0x40000040}; "
      "wgmma.mma_async.sync.aligned.m64n136k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67"
      "}, {%68, %69, %70, %71}, y, p, 1, 1, 1;}"
      : MOGE_D8(0), MOGE_D8(8), MOGE_D8(16), MOGE_D8(24), MOGE_D8(32), MOGE_D8(40), MOGE_D8(48), MOGE_D8(56),
        "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
}
// clang-format on
#undef MOGE_D8

}  // namespace moge::ops::cuda
