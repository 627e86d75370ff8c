// The packed form of the right-hand operand (a weight, or the activations in a weight gradient): panels of 64
// columns, each [steps, width] words, one after the other. Streaming it (few rows) reads memory strictly
// forward; multiplying by it (many rows) reads one panel from cache again and again.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/buffer.h"
#include "core/dtype.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "ops/cpu/vec/matmul.h"

namespace moge::ops::cpu {

/// Geometry of a packed [inner dimension, cols] operand.
struct Panels {
  Panels(int64_t inner, int64_t cols, int64_t elements_per_word)
      : steps((inner + elements_per_word - 1) / elements_per_word),
        cols(cols),
        padded_cols(align_up(cols, vec::kPanelUnit)) {}
  int64_t count() const { return (cols + vec::kPanelCols - 1) / vec::kPanelCols; }
  int64_t cols_of(int64_t panel) const { return std::min(vec::kPanelCols, cols - panel * vec::kPanelCols); }
  int64_t width_of(int64_t panel) const {
    return std::min(vec::kPanelCols, padded_cols - panel * vec::kPanelCols);
  }
  int64_t offset_of(int64_t panel) const { return panel * vec::kPanelCols * steps; }  ///< in words
  int64_t words() const { return steps * padded_cols; }
  vec::Strips strips(uint32_t* data) const { return {data, steps, cols, vec::kPanelCols}; }

  int64_t steps;
  int64_t cols;
  int64_t padded_cols;
};

/// Whether a weight [.., N, K] has a packed form of its own size, so that it can be packed in place.
inline bool can_pack_in_place(int64_t N, int64_t K) {
  return N % vec::kPanelUnit == 0 && K % 2 == 0;
}

/// Element (n, k) of a weight packed in place.
inline int64_t packed_index(int64_t n, int64_t k, int64_t N, int64_t K, DType dtype) {
  const int64_t per_word = dtype == DType::kBF16 ? 2 : 1;
  const Panels panels(K, N, per_word);
  const int64_t panel = n / vec::kPanelCols;
  const int64_t word = panels.offset_of(panel) + k / per_word * panels.width_of(panel) + n % vec::kPanelCols;
  return word * per_word + k % per_word;
}

/// y[K] = row n of a weight [N, K] packed in place, widened to fp32.
inline void unpack_row(float* y, const Tensor& w, int64_t n) {
  const bool bf16 = w.dtype == DType::kBF16;
  const Panels panels(w.dim(1), w.dim(0), bf16 ? 2 : 1);
  const int64_t panel = n / vec::kPanelCols;
  const auto* word = static_cast<const uint32_t*>(w.data) + panels.offset_of(panel) + n % vec::kPanelCols;
  for (int64_t s = 0; s < panels.steps; ++s, word += panels.width_of(panel)) {
    if (bf16) {
      y[2 * s] = std::bit_cast<float>(*word << 16);
      y[2 * s + 1] = std::bit_cast<float>(*word & 0xffff0000U);
    } else {
      y[s] = std::bit_cast<float>(*word);
    }
  }
}

}  // namespace moge::ops::cpu
