#include "ops/cpu/permute.h"

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/vec/permute.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kBlockTokens = 256;

void check_id(int32_t id, int64_t t, int64_t k, int64_t E) {
  check_index("permute_fwd", "topk_ids", t, k, id, E);
}

struct Sizes {
  explicit Sizes(const PermuteFwd& a)
      : T(a.topk_ids.dim(0)),
        K(a.topk_ids.dim(1)),
        S(a.slot_row.dim(1) - K),
        E(a.offsets.dim(0) - 1 - S),
        blocks(ceil_div(T, kBlockTokens)) {}
  int64_t T, K, S, E, blocks;
};

/// By the definition: expert after expert, token after token.
void fwd_ref(ExecContext&, const PermuteFwd& a, std::span<std::byte>) {
  const Sizes n(a);
  const Rows<int32_t> ids(a.topk_ids), slot_row(a.slot_row), offsets(a.offsets), row_token(a.row_token);
  const Rows<float> weights(a.topk_weights), row_weight(a.row_weight);
  for (int64_t t = 0; t < n.T; ++t)
    for (int64_t k = 0; k < n.K; ++k) check_id(ids[t][k], t, k, n.E);
  int32_t row = 0;
  const auto place = [&](int64_t t, int64_t slot, float weight) {
    *row_token[row] = static_cast<int32_t>(t);
    *row_weight[row] = weight;
    slot_row[t][slot] = row++;
  };
  for (int64_t e = 0; e < n.E; ++e) {
    *offsets[e] = row;
    for (int64_t t = 0; t < n.T; ++t)
      for (int64_t k = 0; k < n.K; ++k)
        if (ids[t][k] == e) place(t, k, weights[t][k]);
  }
  for (int64_t s = 0; s < n.S; ++s) {
    *offsets[n.E + s] = row;
    for (int64_t t = 0; t < n.T; ++t) place(t, n.K + s, 1.0F);
  }
  *offsets[n.E + n.S] = row;
}

/// Parallel counting sort: count per block of tokens, prefix sums over (expert, block), place.
void fwd_blocks(ExecContext& ctx, const PermuteFwd& a, std::span<std::byte> ws) {
  const Sizes n(a);
  const Rows<int32_t> ids(a.topk_ids), slot_row(a.slot_row);
  const Rows<float> weights(a.topk_weights);
  auto* offsets = a.offsets.ptr<int32_t>();
  auto* row_token = a.row_token.ptr<int32_t>();
  auto* row_weight = a.row_weight.ptr<float>();
  auto* next = reinterpret_cast<int32_t*>(ws.data());  // [blocks, E]: counts, then each block's next row
  parallel_for(*ctx.pool, n.T, kBlockTokens, [&](int64_t begin, int64_t end) {
    int32_t* count = next + begin / kBlockTokens * n.E;
    std::fill_n(count, n.E, 0);
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t k = 0; k < n.K; ++k) {
        check_id(ids[t][k], t, k, n.E);
        ++count[ids[t][k]];
      }
    }
  });
  int32_t row = 0;
  for (int64_t e = 0; e < n.E; ++e) {
    offsets[e] = row;
    for (int64_t b = 0; b < n.blocks; ++b) {
      const int32_t count = next[b * n.E + e];
      next[b * n.E + e] = row;
      row += count;
    }
  }
  for (int64_t s = 0; s <= n.S; ++s) offsets[n.E + s] = row + static_cast<int32_t>(s * n.T);
  parallel_for(*ctx.pool, n.T, kBlockTokens, [&](int64_t begin, int64_t end) {
    int32_t* row_of = next + begin / kBlockTokens * n.E;
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t k = 0; k < n.K; ++k) {
        const int32_t r = row_of[ids[t][k]]++;
        row_token[r] = static_cast<int32_t>(t);
        row_weight[r] = weights[t][k];
        slot_row[t][k] = r;
      }
    }
    for (int64_t s = 0; s < n.S; ++s) {
      for (int64_t t = begin; t < end; ++t) {
        const int32_t r = offsets[n.E + s] + static_cast<int32_t>(t);
        row_token[r] = static_cast<int32_t>(t);
        row_weight[r] = 1.0F;
        slot_row[t][n.K + s] = r;
      }
    }
  });
}

int64_t fwd_workspace(const ExecContext&, const PermuteFwd& a) {
  const Sizes n(a);
  return n.blocks * n.E * size_of(DType::kI32);
}

int64_t gather_ref(float* y, const float* x, const int32_t* ids, int64_t y_stride, int64_t ids_stride,
                   int64_t R, int64_t T, int64_t K) {
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t k = 0; k < K; ++k) {
      const int32_t id = ids[t * ids_stride + k];
      if (id < 0 || id >= R) return t;
      y[t * y_stride + k] = x[id];
    }
  }
  return T;
}

const vec::PermuteKernels kRef{gather_ref};

template <const vec::PermuteKernels& kernels>
void bwd(ExecContext& ctx, const PermuteBwd& a, std::span<std::byte>) {
  const int64_t T = a.slot_row.dim(0), K = a.dtopk_weights.dim(1), R = a.drow_weight.dim(0);
  const Rows<float> dtopk_weights(a.dtopk_weights);
  const Rows<int32_t> slot_row(a.slot_row);
  parallel_for(*ctx.pool, T, rows_per_task(8 * K), [&](int64_t begin, int64_t end) {
    const int64_t done =
        begin + kernels.gather(dtopk_weights[begin], a.drow_weight.ptr<float>(), slot_row[begin],
                               dtopk_weights.stride(), slot_row.stride(), R, end - begin, K);
    if (done < end) check_indices("permute_bwd", "slot_row", slot_row[done], done, K, R);
  });
}

}  // namespace

std::vector<Impl<PermuteFwd>> permute_fwd_impls() {
  return {{"cpu.blocks", DeviceKind::kCpu, supports_all<PermuteFwd>, fwd_blocks, fwd_workspace},
          {"cpu.ref", DeviceKind::kCpu, supports_all<PermuteFwd>, fwd_ref}};
}

std::vector<Impl<PermuteBwd>> permute_bwd_impls() {
  return isa_impls<PermuteBwd>(bwd<vec::avx512::permute>, bwd<vec::avx2::permute>, bwd<kRef>);
}

}  // namespace moge::ops::cpu
