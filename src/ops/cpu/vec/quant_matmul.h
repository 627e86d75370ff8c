// Register tiles of serving's products (ops/quant_matmul.h). Weights stay as they are stored: an element is a
// dot product along a row of a and a row of w, so one row of a reads memory strictly forward and nothing is
// packed. vec/quant_panels.h has those of packed weights.
#pragma once
#include <cstdint>

namespace moge::ops::cpu::vec {

/// Most rows of a tile: AVX-512 keeps 6 x 4 sums in registers, AVX2 4 x 2.
inline constexpr int kQuantTileRows = 6;
/// Most columns of one call.
inline constexpr int64_t kQuantCols = 64;

/// What becomes of a tile's sums, and where.
struct QuantOutput {
  const float* w_scale;  // [cols], null (and a_scale unused) for bf16
  const float* bias;     // [cols] or null
  float a_scale[kQuantTileRows];
  float row_weight[kQuantTileRows];
  void* c[kQuantTileRows];  ///< bf16 (uint16_t) or f32
  bool c_bf16;              ///< always with silu_mul
  bool silu_mul;
};

/// c[i, j] for i < rows <= kQuantTileRows, j < cols <= kQuantCols (with silu_mul a multiple of 16, and half
/// as many of c).
struct QuantTile {
  int rows;
  int64_t cols;
  int64_t row_bytes;              ///< of K elements
  const char* a[kQuantTileRows];  ///< [K] each
  const char* w;                  // [cols, K]
  bool stream;                    ///< w comes from memory and is read strictly forward
  int64_t w_ahead;                ///< bytes from what is read of w to what is fetched meanwhile
  int next_rows;                  ///< of next_a, which are fetched into L2
  const char* next_a[kQuantTileRows];
  QuantOutput out;
};

/// An element is the same bits whatever the tile's rows and columns.
struct QuantMatmulKernels {
  int tile_rows, tile_cols;
  int stream_rows;  ///< of a tile that streams, at most
  void (*i8)(const QuantTile& t);
  void (*bf16)(const QuantTile& t);
};
namespace avx2 {
extern const QuantMatmulKernels quant_matmul;
}
namespace avx512 {
extern const QuantMatmulKernels quant_matmul;
}

}  // namespace moge::ops::cpu::vec
