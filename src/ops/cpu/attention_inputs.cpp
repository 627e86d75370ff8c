#include <algorithm>

#include "ops/cpu/attention.h"

namespace moge::ops::cpu {

std::span<const int32_t> checked_offsets(const char* op, const char* name, const Tensor& cu, int64_t T) {
  const std::span<const int32_t> offsets = elements<int32_t>(cu);
  check<ShapeError>(!offsets.empty() && offsets.front() == 0 && offsets.back() == T &&
                        std::is_sorted(offsets.begin(), offsets.end()),
                    op, ": ", name, ": expected offsets that rise from 0 to T=", T);
  return offsets;
}

PagedCache::PagedCache(const PagedAttention& a)
    : cu_q(checked_offsets("paged_attention", "cu_q", a.cu_q, a.q.dim(0))),
      kv_lens(a.kv_lens.ptr<int32_t>()),
      table(a.block_table.ptr<int32_t>()),
      table_stride(a.block_table.stride(0)),
      PS(a.k_pages.dim(2)) {
  const int64_t P = a.k_pages.dim(0), MP = a.block_table.dim(1), B = a.kv_lens.dim(0);
  for (int64_t b = 0; b < B; ++b) {
    const int64_t n = cu_q[b + 1] - cu_q[b];
    check<ShapeError>(a.decode_rows == 0 || n == a.decode_rows,
                      "paged_attention: cu_q: expected decode_rows = ", a.decode_rows,
                      " query rows a sequence, got ", n, " for sequence ", b);
    if (kv_lens[b] <= 0) continue;  // idle
    check<ShapeError>(n <= kv_lens[b] && kv_lens[b] <= MP * PS, "paged_attention: kv_lens[", b,
                      "]: expected ", n, " (its query rows) to ", MP * PS, " (its pages), got ", kv_lens[b]);
    for (int64_t i = 0; i * PS < kv_lens[b]; ++i) {
      const int32_t page = table[b * table_stride + i];
      check<ShapeError>(page >= 0 && page < P, "paged_attention: block_table[", b, ", ", i,
                        "]: expected a page below P=", P, ", got ", page);
    }
  }
}

}  // namespace moge::ops::cpu
