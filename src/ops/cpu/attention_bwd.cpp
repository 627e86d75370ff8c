// The backward of attention: one task owns a KV head of a sequence, so dk and dv have one writer and one
// order. Per block of keys, the query blocks of all its heads follow one another (flash attention 2's
// backward loop, arXiv 2307.08691).
#include <algorithm>

#include "ops/cpu/attention.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/scratch.h"
#include "ops/cpu/vec/attention.h"

namespace moge::ops::cpu {

namespace {

using vec::kKeyBlock;

constexpr int64_t kQueryBlock = 128;

/// One thread's buffers.
struct Buffers {
  Buffers(int64_t Dh, Scratch& scratch) {
    const int64_t ld = vec::row_stride(Dh);
    k_t = scratch.take<float>(kKeyBlock * Dh);
    v_t = scratch.take<float>(kKeyBlock * Dh);
    k = scratch.take<float>(kKeyBlock * ld);
    dk = scratch.take<float>(kKeyBlock * ld);
    dv = scratch.take<float>(kKeyBlock * ld);
    q = scratch.take<float>(kQueryBlock * ld);
    dq = scratch.take<float>(kQueryBlock * ld);
    dout = scratch.take<float>(kQueryBlock * ld);
    s = scratch.take<float>(kQueryBlock * vec::kScoreStride);
    ds = scratch.take<float>(kQueryBlock * vec::kScoreStride);
    lse = scratch.take<float>(kQueryBlock);
    delta = scratch.take<float>(kQueryBlock);
    visible = scratch.take<int32_t>(kQueryBlock);
  }
  float *k_t, *v_t, *k, *dk, *dv, *q, *dq, *dout, *s, *ds, *lse, *delta;
  int32_t* visible;
};

/// The rows of tokens first .. first + n - 1 of one head.
struct RowPointers {
  static constexpr int64_t kMax = std::max(kKeyBlock, kQueryBlock);
  RowPointers(const Heads& x, int64_t first, int64_t n, int64_t head) {
    for (int64_t i = 0; i < n; ++i) rows[i] = x.at(first + i, head);
  }
  const void* rows[kMax];
};

template <const vec::AttentionKernels& kernels>
class KvHeadTask {
 public:
  KvHeadTask(const AttentionBwd& a, const float* delta, Scratch& scratch)
      : dq_(a.dq),
        dk_(a.dk),
        dv_(a.dv),
        dout_(a.dout),
        q_(a.q),
        k_(a.k),
        v_(a.v),
        a_(a),
        delta_(delta),
        H_(a.q.dim(1)),
        G_(H_ / a.k.dim(1)),
        Dh_(a.q.dim(2)),
        ld_(vec::row_stride(Dh_)),
        b_(Dh_, scratch) {}

  /// All gradients of sequence [first, first + n) that belong to this KV head.
  void run(int64_t first, int64_t n, int64_t kv_head) {
    for (int64_t key = 0; key < n; key += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, n - key);
      const RowPointers k(k_, first + key, keys, kv_head), v(v_, first + key, keys, kv_head);
      kernels.f32.keys(b_.k_t, k.rows, keys, Dh_);
      kernels.f32.keys(b_.v_t, v.rows, keys, Dh_);
      kernels.f32.rows(b_.k, k.rows, keys, Dh_);
      std::fill_n(b_.dk, keys * ld_, 0.0F);
      std::fill_n(b_.dv, keys * ld_, 0.0F);
      for (int64_t h = kv_head * G_; h < (kv_head + 1) * G_; ++h)
        for (int64_t query = key / kQueryBlock * kQueryBlock; query < n; query += kQueryBlock)
          query_block(first, query, std::min(kQueryBlock, n - query), h, key, keys);
      store(dk_, b_.dk, first + key, keys, kv_head);
      store(dv_, b_.dv, first + key, keys, kv_head);
    }
  }

 private:
  void query_block(int64_t first, int64_t query, int64_t rows, int64_t h, int64_t key, int64_t keys) {
    const RowPointers q(q_, first + query, rows, h), dout(dout_, first + query, rows, h);
    kernels.f32.rows(b_.q, q.rows, rows, Dh_);
    kernels.f32.rows(b_.dout, dout.rows, rows, Dh_);
    if (key == 0) {
      std::fill_n(b_.dq, rows * ld_, 0.0F);
    } else {
      const RowPointers dq(dq_, first + query, rows, h);
      kernels.f32.rows(b_.dq, dq.rows, rows, Dh_);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t t = first + query + r;
      b_.lse[r] = a_.lse.ptr<float>()[t * a_.lse.stride(0) + h];
      b_.delta[r] = delta_[t * H_ + h];
      b_.visible[r] = static_cast<int32_t>(std::clamp<int64_t>(query + r + 1 - key, 0, keys));
    }
    vec::AttentionBwdBlock block;
    block.rows = rows;
    block.keys = keys;
    block.Dh = Dh_;
    block.scale = a_.scale;
    block.visible = b_.visible;
    block.q = b_.q;
    block.k_t = b_.k_t;
    block.s = b_.s;
    block.k = b_.k;
    block.v_t = b_.v_t;
    block.dout = b_.dout;
    block.lse = b_.lse;
    block.delta = b_.delta;
    block.ds = b_.ds;
    block.dq = b_.dq;
    block.dk = b_.dk;
    block.dv = b_.dv;
    kernels.bwd(block);
    store(dq_, b_.dq, first + query, rows, h);
  }

  void store(const Heads& to, const float* rows, int64_t first, int64_t n, int64_t head) const {
    for (int64_t i = 0; i < n; ++i) std::copy_n(rows + i * ld_, Dh_, to.at(first + i, head));
  }

  Heads dq_, dk_, dv_, dout_, q_, k_, v_;
  const AttentionBwd& a_;
  const float* delta_;  // [T, H]
  int64_t H_, G_, Dh_, ld_;
  Buffers b_;
};

void row_dots(ExecContext& ctx, float* delta, const AttentionBwd& a) {
  const Heads dout(a.dout), out(a.out);
  const int64_t H = a.q.dim(1), Dh = a.q.dim(2);
  parallel_for(*ctx.pool, a.q.dim(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < H; ++h) {
        const float *x = dout.at(t, h), *y = out.at(t, h);
        double sum = 0;
        for (int64_t i = 0; i < Dh; ++i) sum += double{x[i]} * y[i];
        delta[t * H + h] = static_cast<float>(sum);
      }
    }
  });
}

template <const vec::AttentionKernels& kernels>
void run(ExecContext& ctx, const AttentionBwd& a, std::span<std::byte> ws) {
  const int64_t T = a.q.dim(0), H = a.q.dim(1), KV = a.k.dim(1), Dh = a.q.dim(2);
  const auto cu = checked_offsets("attention_bwd", "cu_seqlens", a.cu_seqlens, T);
  Scratch shared(ws), counter;
  auto* delta = shared.take<float>(T * H);
  row_dots(ctx, delta, a);
  Buffers(Dh, counter);
  ctx.pool->run((static_cast<int64_t>(cu.size()) - 1) * KV, [&](int64_t task, int thread) {
    const int64_t b = task / KV;
    Scratch scratch(ws.subspan(shared.used_bytes() + thread * counter.used_bytes()));
    KvHeadTask<kernels>(a, delta, scratch).run(cu[b], cu[b + 1] - cu[b], task % KV);
  });
}

int64_t workspace(const ExecContext& ctx, const AttentionBwd& a) {
  Scratch shared, thread;
  shared.take<float>(a.q.dim(0) * a.q.dim(1));
  Buffers(a.q.dim(2), thread);
  return shared.used_bytes() + ctx.pool->num_threads() * thread.used_bytes();
}

}  // namespace

std::vector<Impl<AttentionBwd>> attention_bwd_impls() {
  return {
      {"cpu.avx512", DeviceKind::kCpu, needs_avx512<AttentionBwd>, run<vec::avx512::attention>, workspace},
      {"cpu.avx2", DeviceKind::kCpu, needs_avx2<AttentionBwd>, run<vec::avx2::attention>, workspace},
      attention_bwd_ref};
}

}  // namespace moge::ops::cpu
