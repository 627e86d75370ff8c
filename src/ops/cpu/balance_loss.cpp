#include "ops/cpu/balance_loss.h"

#include <atomic>
#include <cstring>

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/balance_loss.h"

namespace moge::ops::cpu {

namespace {

int64_t count_ref(int32_t* counts, const int32_t* ids, int64_t ids_stride, int64_t E, int64_t T, int64_t K) {
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t k = 0; k < K; ++k) {
      const int32_t id = ids[t * ids_stride + k];
      if (id < 0 || id >= E) return t;
      ++counts[id];
    }
  }
  return T;
}

float dot_row_ref(const float* probs, const float* factors, int64_t E) {
  double dot = 0;
  for (int64_t e = 0; e < E; ++e) dot += double{probs[e]} * factors[e];
  return static_cast<float>(dot);
}

double z_block_ref(float* dlse, const float* lse, float factor, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += double{lse[i]} * lse[i];
    if (dlse) dlse[i] = factor * lse[i];
  }
  return sum;
}

const vec::BalanceLossKernels kRef{count_ref, dot_row_ref, z_block_ref};

/// The segments of a [S + 1] tensor, checked to rise within 0..rows.
class Segments {
 public:
  Segments(const char* op, const Tensor& segments, int64_t rows)
      : begin_(segments), count_(segments.dim(0) - 1) {
    int64_t last = 0;
    for (int64_t s = 0; s <= count_; ++s) {
      if (*begin_[s] < last || *begin_[s] > rows)
        throw ShapeError(str(op, ": segments[", s, "]: expected ", last, "..", rows, ", got ", *begin_[s]));
      last = *begin_[s];
    }
  }
  /// fn(segment, begin, end) for the pieces of rows begin..end-1, in order; segment -1 for rows in none.
  template <class Fn>
  void each_piece(int64_t begin, int64_t end, const Fn& fn) const {
    for (int64_t s = -1; s <= count_ && begin < end; ++s) {
      const int64_t stop = s == count_ ? end : std::min<int64_t>(end, *begin_[s + 1]);
      if (stop <= begin) continue;
      fn(s == count_ ? -1 : s, begin, stop);
      begin = stop;
    }
  }

 private:
  Rows<int32_t> begin_;
  int64_t count_;
};

constexpr int64_t kCountTokens = 1024;

/// Blocks of tokens count apart and then add: integers, so the order doesn't matter.
template <const vec::BalanceLossKernels& kernels>
void counts(ExecContext& ctx, const ExpertCounts& a, std::span<std::byte> ws) {
  const int64_t T = a.topk_ids.dim(0);
  const int64_t K = a.topk_ids.dim(1);
  const int64_t E = a.counts.dim(1);
  const Segments segments("expert_counts", a.segments, T);
  const Rows<int32_t> total(a.counts), ids(a.topk_ids);
  auto* partial = reinterpret_cast<int32_t*>(ws.data());  // [blocks, E]
  parallel_for(*ctx.pool, T, kCountTokens, [&](int64_t begin, int64_t end) {
    int32_t* count = partial + begin / kCountTokens * E;
    segments.each_piece(begin, end, [&](int64_t segment, int64_t first, int64_t last) {
      if (segment < 0) return;
      std::fill_n(count, E, 0);
      const int64_t done = first + kernels.count(count, ids[first], ids.stride(), E, last - first, K);
      if (done < last) check_indices("expert_counts", "topk_ids", ids[done], done, K, E);
      for (int64_t e = 0; e < E; ++e)
        if (count[e] > 0) std::atomic_ref(total[segment][e]).fetch_add(count[e], std::memory_order_relaxed);
    });
  });
}

int64_t counts_workspace(const ExecContext&, const ExpertCounts& a) {
  return ceil_div(a.topk_ids.dim(0), kCountTokens) * a.counts.dim(1) * size_of(DType::kI32);
}

/// loss = sum over rows of dot(probs, factors of the row's segment), factors = dprobs = weight * f_i / n.
template <const vec::BalanceLossKernels& kernels>
void balance(ExecContext& ctx, const BalanceLoss& a, std::span<std::byte> ws) {
  const int64_t T = a.probs.dim(0);
  const int64_t E = a.probs.dim(1);
  const int64_t S = a.counts.dim(0);
  const Segments segments("balance_loss", a.segments, T);
  auto* partial = reinterpret_cast<double*>(ws.data());                     // [tasks]
  auto* factors = reinterpret_cast<float*>(partial + num_row_tasks(T, E));  // [S, E]
  const Rows<int32_t> counts(a.counts), tokens(a.segment_tokens);
  for (int64_t s = 0; s < S; ++s) {
    const double n = *tokens[s];
    const double scale = n > 0 ? double{a.weight} * static_cast<double>(E) / (a.topk * n * n) : 0;
    for (int64_t e = 0; e < E; ++e) factors[s * E + e] = static_cast<float>(scale * counts[s][e]);
  }
  const Rows<float> probs(a.probs), dprobs(a.dprobs);
  parallel_for(*ctx.pool, T, rows_per_task(E), [&](int64_t begin, int64_t end) {
    double sum = 0;
    segments.each_piece(begin, end, [&](int64_t segment, int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        if (segment >= 0) {
          sum += kernels.dot_row(probs[t], factors + segment * E, E);
          if (dprobs) std::memcpy(dprobs[t], factors + segment * E, E * sizeof(float));
        } else if (dprobs) {
          std::fill_n(dprobs[t], E, 0.0F);
        }
      }
    });
    partial[begin / rows_per_task(E)] = sum;
  });
  double loss = 0;
  for (int64_t i = 0; i < num_row_tasks(T, E); ++i) loss += partial[i];
  *a.loss.ptr<float>() = static_cast<float>(loss);
}

int64_t balance_workspace(const ExecContext&, const BalanceLoss& a) {
  const int64_t E = a.probs.dim(1);
  return num_row_tasks(a.probs.dim(0), E) * static_cast<int64_t>(sizeof(double)) +
         a.counts.dim(0) * E * size_of(DType::kF32);
}

template <const vec::BalanceLossKernels& kernels>
void z(ExecContext& ctx, const ZLoss& a, std::span<std::byte> ws) {
  const int64_t T = a.lse.dim(0);
  const Rows<float> lse(a.lse), dlse(a.dlse);
  auto* partial = reinterpret_cast<double*>(ws.data());  // [tasks]
  parallel_for(*ctx.pool, T, rows_per_task(1), [&](int64_t begin, int64_t end) {
    partial[begin / rows_per_task(1)] = kernels.z_block(dlse[begin], lse[begin], 2 * a.weight, end - begin);
  });
  double sum = 0;
  for (int64_t i = 0; i < num_row_tasks(T, 1); ++i) sum += partial[i];
  *a.loss.ptr<float>() = static_cast<float>(a.weight * sum);
}

int64_t z_workspace(const ExecContext&, const ZLoss& a) {
  return num_row_tasks(a.lse.dim(0), 1) * static_cast<int64_t>(sizeof(double));
}

}  // namespace

std::vector<Impl<ExpertCounts>> expert_counts_impls() {
  return isa_impls<ExpertCounts>(counts<vec::avx512::balance_loss>, counts<vec::avx2::balance_loss>,
                                 counts<kRef>, counts_workspace);
}

std::vector<Impl<BalanceLoss>> balance_loss_impls() {
  return isa_impls<BalanceLoss>(balance<vec::avx512::balance_loss>, balance<vec::avx2::balance_loss>,
                                balance<kRef>, balance_workspace);
}

std::vector<Impl<ZLoss>> z_loss_impls() {
  return isa_impls<ZLoss>(z<vec::avx512::balance_loss>, z<vec::avx2::balance_loss>, z<kRef>, z_workspace);
}

}  // namespace moge::ops::cpu
