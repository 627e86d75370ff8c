// Paged attention. Many query rows: one task takes a block of them through all keys. Few rows (decode): the
// key blocks are tasks of their own and their states are merged afterwards, in the same order, to the same
// bits.
#include <algorithm>

#include "ops/cpu/attention_rows.h"
#include "ops/cpu/isa.h"

namespace moge::ops::cpu {

namespace {

using vec::kKeyBlock;

struct Sizes {
  explicit Sizes(const PagedAttention& a)
      : T(a.q.dim(0)),
        H(a.q.dim(1)),
        KV(a.k_pages.dim(1)),
        G(H / KV),
        Dh(a.q.dim(2)),
        PS(a.k_pages.dim(2)),
        max_keys(a.block_table.dim(1) * PS) {}
  /// By shapes alone, as workspace is planned before lengths are known; either way gives the same bits.
  bool split() const { return T * KV < kEnoughTasks && partial_floats() <= kMaxPartialFloats; }
  int64_t key_blocks() const { return (max_keys + kKeyBlock - 1) / kKeyBlock; }
  int64_t state_floats() const { return vec::row_stride(Dh) + 2 * vec::kLine; }
  int64_t partial_floats() const { return T * H * key_blocks() * state_floats(); }

  static constexpr int64_t kEnoughTasks = 64;
  static constexpr int64_t kMaxPartialFloats = 8 << 20;
  int64_t T, H, KV, G, Dh, PS, max_keys;
};

template <const vec::AttentionKernels& kernels>
class Batch {
 public:
  Batch(const PagedAttention& a, std::span<std::byte> ws, int num_threads)
      : a_(a),
        n_(a),
        cache_(a),
        shared_(ws),
        blocks_(cache_.cu_q, n_.G, shared_),
        partials_(n_.split() ? shared_.take<float>(n_.partial_floats()) : nullptr),
        ws_(ws),
        thread_bytes_((static_cast<int64_t>(ws.size()) - shared_.used_bytes()) / num_threads) {}

  void run(ThreadPool& pool) const {
    const int64_t row_tasks = blocks_.count() * n_.KV;
    if (!partials_) {
      pool.run(row_tasks, [&](int64_t task, int thread) { whole(row_tasks - 1 - task, thread); });
      return;
    }
    const int64_t splits = n_.key_blocks();
    pool.run(row_tasks * splits,
             [&](int64_t task, int thread) { split(task / splits, task % splits, thread); });
    pool.run(row_tasks, [&](int64_t task, int thread) { combine(task, thread); });
  }

 private:
  struct Task {
    Task(const Batch& batch, int64_t task, int thread)
        : block(batch.blocks_[task / batch.n_.KV]),
          kv_head(task % batch.n_.KV),
          scratch(batch.ws_.subspan(batch.shared_.used_bytes() + thread * batch.thread_bytes_)),
          rows(kernels, batch.n_.G, batch.n_.Dh, scratch),
          first_visible(batch.cache_.kv_lens[block.b] - batch.cache_.cu_q[block.b + 1] + block.begin + 1),
          seen(first_visible + block.count - 1) {}
    QueryBlock block;
    int64_t kv_head;
    Scratch scratch;
    RowAttention rows;
    int64_t first_visible, seen;  ///< keys seen by the first and by the last token
  };

  void attend(Task& t, int64_t begin, const vec::AttentionState& into) const {
    const int64_t keys = std::min(kKeyBlock, t.seen - begin);
    const void* k_rows[kKeyBlock];
    const void* v_rows[kKeyBlock];
    const int64_t bytes = size_of(a_.k_pages.dtype);
    for (int64_t j = 0; j < keys; ++j) {
      const auto row = [&](const Tensor& pages) {
        return static_cast<const std::byte*>(pages.data) +
               cache_.row(pages, t.block.b, t.kv_head, begin + j) * bytes;
      };
      k_rows[j] = row(a_.k_pages);
      v_rows[j] = row(a_.v_pages);
    }
    t.rows.attend(bytes == 4 ? kernels.f32 : kernels.bf16, k_rows, v_rows, begin, keys, t.first_visible,
                  a_.scale, into);
  }

  void whole(int64_t task, int thread) const {
    Task t(*this, task, thread);
    t.rows.start(a_.q, t.block, t.kv_head);
    for (int64_t begin = 0; begin < t.seen; begin += kKeyBlock) {
      attend(t, begin, t.rows.partial());
      t.rows.merge(t.rows.partial());
    }
    t.rows.finish(a_.out, {});
  }

  void split(int64_t task, int64_t key_block, int thread) const {
    Task t(*this, task, thread);
    if (key_block * kKeyBlock >= t.seen) return;
    t.rows.start(a_.q, t.block, t.kv_head);
    attend(t, key_block * kKeyBlock, partial(t, key_block));
  }

  void combine(int64_t task, int thread) const {
    Task t(*this, task, thread);
    t.rows.start(a_.q, t.block, t.kv_head);
    for (int64_t key_block = 0; key_block * kKeyBlock < t.seen; ++key_block)
      t.rows.merge(partial(t, key_block));
    t.rows.finish(a_.out, {});
  }

  /// Where the state of a task's rows after one key block is kept: [rows] of each member.
  vec::AttentionState partial(const Task& t, int64_t key_block) const {
    const int64_t rows = t.rows.rows();
    const int64_t before = (t.block.begin * n_.KV + t.kv_head * t.block.count) * n_.G * n_.key_blocks();
    float* m = partials_ + (before + key_block * rows) * n_.state_floats();
    return {m, m + rows * vec::kLine, m + rows * 2 * vec::kLine};
  }

  const PagedAttention& a_;
  Sizes n_;
  PagedCache cache_;
  Scratch shared_;
  QueryBlocks blocks_;
  float* partials_;  // null: not split
  std::span<std::byte> ws_;
  int64_t thread_bytes_;
};

template <const vec::AttentionKernels& kernels>
void run(ExecContext& ctx, const PagedAttention& a, std::span<std::byte> ws) {
  if (a.q.dim(0) > 0) Batch<kernels>(a, ws, ctx.pool->num_threads()).run(*ctx.pool);
}

/// Pages that are read as they are.
template <Refusal (*isa)(const PagedAttention&)>
Refusal supports(const PagedAttention& a) {
  if (a.k_pages.dtype != DType::kF32 && a.k_pages.dtype != DType::kBF16)
    return str("pages of ", name_of(a.k_pages.dtype), ": expected f32 or bf16");
  return isa(a);
}

int64_t workspace(const ExecContext& ctx, const PagedAttention& a) {
  const Sizes n(a);
  Scratch shared, thread;
  QueryBlocks({static_cast<const int32_t*>(nullptr), static_cast<size_t>(a.cu_q.dim(0))}, n.G, shared);
  if (n.split()) shared.take<float>(n.partial_floats());
  RowAttention(vec::avx2::attention, n.G, n.Dh, thread);
  return shared.used_bytes() + ctx.pool->num_threads() * thread.used_bytes();
}

}  // namespace

std::vector<Impl<PagedAttention>> paged_attention_impls() {
  return {{"cpu.avx512", DeviceKind::kCpu, supports<needs_avx512>, run<vec::avx512::attention>, workspace},
          {"cpu.avx2", DeviceKind::kCpu, supports<needs_avx2>, run<vec::avx2::attention>, workspace},
          paged_attention_ref};
}

}  // namespace moge::ops::cpu
