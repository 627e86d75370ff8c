#include <algorithm>

#include "ops/cpu/attention_rows.h"
#include "ops/cpu/isa.h"

namespace moge::ops::cpu {

namespace {

using vec::kKeyBlock;

template <const vec::AttentionKernels& kernels>
void run(ExecContext& ctx, const AttentionFwd& a, std::span<std::byte> ws) {
  const Heads k(a.k), v(a.v);
  const int64_t T = a.q.dim(0), KV = a.k.dim(1), G = a.q.dim(1) / std::max<int64_t>(KV, 1), Dh = a.q.dim(2);
  const auto cu = checked_offsets("attention_fwd", "cu_seqlens", a.cu_seqlens, T);
  Scratch shared(ws);
  const QueryBlocks blocks(cu, G, shared);
  const int64_t thread_bytes =
      (static_cast<int64_t>(ws.size()) - shared.used_bytes()) / ctx.pool->num_threads();
  const int64_t tasks = blocks.count() * KV;
  ctx.pool->run(tasks, [&](int64_t task, int thread) {
    // Late blocks of a sequence see the most keys: start with them.
    const QueryBlock block = blocks[(tasks - 1 - task) / KV];
    const int64_t kv_head = task % KV;
    Scratch scratch(ws.subspan(shared.used_bytes() + thread * thread_bytes));
    RowAttention rows(kernels, G, Dh, scratch);
    rows.start(a.q, block, kv_head);
    const int64_t first = cu[block.b], first_visible = block.begin + 1 - first;
    const int64_t seen = first_visible + block.count - 1;
    for (int64_t begin = 0; begin < seen; begin += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, seen - begin);
      const void* k_rows[kKeyBlock];
      const void* v_rows[kKeyBlock];
      for (int64_t j = 0; j < keys; ++j) {
        k_rows[j] = k.at(first + begin + j, kv_head);
        v_rows[j] = v.at(first + begin + j, kv_head);
      }
      rows.attend(kernels.f32, k_rows, v_rows, begin, keys, first_visible, a.scale, rows.partial());
      rows.merge(rows.partial());
    }
    rows.finish(a.out, a.lse);
  });
}

int64_t workspace(const ExecContext& ctx, const AttentionFwd& a) {
  const int64_t G = a.q.dim(1) / a.k.dim(1);
  Scratch shared, thread;
  QueryBlocks({static_cast<const int32_t*>(nullptr), static_cast<size_t>(a.cu_seqlens.dim(0))}, G, shared);
  RowAttention(vec::avx2::attention, G, a.q.dim(2), thread);
  return shared.used_bytes() + ctx.pool->num_threads() * thread.used_bytes();
}

}  // namespace

std::vector<Impl<AttentionFwd>> attention_fwd_impls() {
  return {
      {"cpu.avx512", DeviceKind::kCpu, needs_avx512<AttentionFwd>, run<vec::avx512::attention>, workspace},
      {"cpu.avx2", DeviceKind::kCpu, needs_avx2<AttentionFwd>, run<vec::avx2::attention>, workspace},
      attention_fwd_ref};
}

}  // namespace moge::ops::cpu
