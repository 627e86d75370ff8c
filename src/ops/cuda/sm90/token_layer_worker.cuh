// The warps of a token layer's block that read weights and multiply.
#pragma once
#include "ops/cuda/divider.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/sm90/bulk_copy.cuh"
#include "ops/cuda/sm90/swift_epilogue.cuh"
#include "ops/cuda/sm90/token_layer.cuh"
#include "ops/cuda/vec.cuh"
#include "ops/quantize.h"

namespace moge::ops::cuda::token {

__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ BF16 to_bf16(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
inline constexpr int kWorkersBarrier = 1;  ///< of the warps that multiply

/// Eight bf16s that another block may have written, or zeros.
__device__ __forceinline__ uint4 load_bf16(const BF16* from, int vec, int vecs) {
  return vec < vecs ? __ldcg(reinterpret_cast<const uint4*>(from) + vec) : uint4{};
}
__device__ __forceinline__ float largest_of(const uint4& bf16) {
  float x[kVec], largest = 0;
  unpack_bf16(x, bf16);
#pragma unroll
  for (const float e : x) largest = fmaxf(largest, fabsf(e));
  return largest;
}
static __device__ __noinline__ void quantise(int8_t* to, uint4 bf16, Divider by_scale) {
  float x[kVec];
  unpack_bf16(x, bf16);
  by_scale.divide(x);
  store_vec(to, x);
}

/// A thread of the warps that multiply. Of rows of width D it holds vectors thread and thread + threads, of
/// the row that the weights multiply its lane's bytes.
class Worker {
 public:
  __device__ Worker(const Params& p, const Chunks& chunks, uint8_t* memory)
      : p_(p),
        at_(p.at),
        chunks_(chunks),
        memory_(memory),
        shared_(shared_address(memory)),
        expert_(reinterpret_cast<const int*>(memory + p.at.expert)),
        thread_(static_cast<int>(threadIdx.x)),
        threads_(p.warps * kWarp),
        lane_(thread_ % kWarp),
        warp_(thread_ / kWarp) {}

  /// Begins to read the warp's first chunks, which are o_proj's, a lane each, before the block's Chunks are
  /// there: all blocks wait for those that start last, where the kernel before has ended last.
  __device__ void begin() {
    const Share own = p_.of_D.of(blockIdx.x);
    const int count = Chunks::num_out(p_, own), i = warp_ + lane_ * p_.warps;
    const bool reads = lane_ < static_cast<int>(kWarpStages) && i < count;
    const Chunk chunk = Chunks::out(p_, own, min(i, count - 1));
    const auto n = static_cast<unsigned>(lane_);
    if (lane_ < static_cast<int>(kWarpStages)) barrier_init(full(n), 2);
    fence_barrier_init();
    __syncwarp();  // each lane uses its own barrier, but racecheck takes one lane for the writer of all
    if (reads) read(chunk, n);
    __syncwarp();
    num_begun_ = static_cast<unsigned>(__popc(__ballot_sync(kAllLanes, reads)));
    unread_ = warp_ + static_cast<int>(num_begun_) * p_.warps;
  }

  /// One loop over the phases, not a piece of code for each: instructions that run once are slow to fetch.
  __device__ void run() {
#pragma unroll 1
    for (int phase = kOut; phase < kNumPhases; ++phase) {
      enter(phase);
      multiply(phase);
    }
  }

 private:
  __device__ int8_t* row() const {
    return reinterpret_cast<int8_t*>(memory_ + at_.row);
  }
  __device__ int8_t* h(int slot) const {
    return reinterpret_cast<int8_t*>(memory_ + at_.h) + slot * p_.F;
  }
  __device__ BF16* y(int slot) const {
    return reinterpret_cast<BF16*>(memory_ + at_.y) + slot * at_.y_pitch;
  }
  __device__ float* own_x() const {
    return reinterpret_cast<float*>(memory_ + at_.x);
  }
  __device__ int* shared_sum() const {
    return reinterpret_cast<int*>(memory_ + at_.shared_sum);
  }
  __device__ const float* shared_scale() const {
    return reinterpret_cast<const float*>(memory_ + at_.shared_scale);
  }
  __device__ Divider* h_scale() const {
    return reinterpret_cast<Divider*>(memory_ + at_.h_scale);
  }
  __device__ int* h_max() const {
    return reinterpret_cast<int*>(memory_ + at_.h_max);
  }
  __device__ float* weight() const {
    return reinterpret_cast<float*>(memory_ + at_.weight);
  }
  __device__ void sync() const {
    named_barrier(kWorkersBarrier, threads_);
  }

  /// What comes before a phase's products. Where blocks meet, all go on reading.
  __device__ void enter(int phase) {
    const bool middle = phase == kShared, norms = middle || phase == kQkv;
    float x[kThreadVecs][kVec] = {}, weight[kThreadVecs][kVec] = {};
    if (phase == kOut) {
      wait_for_previous();
      if (blockIdx.x == 0 && thread_ == 0) arrivals[kSum].count = 0;
      take_pair();
      known_ = kShared;
      quantise_attention();
    } else if (phase == kRouted) {
      barrier_wait(shared_ + at_.routed, 0);
      known_ = kQkv;
    } else if (norms) {
      const float* const norm = middle ? p_.norm : p_.next_norm;
      for_vecs([&](int i, int column) { load_vec(weight[i], norm + column); });
      if (middle) load_x(x);
    }
    read_on(phase);
    if (phase == kDown) quantise_hidden();
    if (norms) normalise(middle, x, weight);
    if (phase == kOut || norms) load_row<kMaxWidth>(row(), phase == kOut ? p_.A : p_.D);
  }

  static __device__ Arrivals& meeting_before(int phase) {
    return arrivals[phase == kShared ? kDelta : phase == kDown ? kHidden : kSum];
  }
  /// At the meeting before the phase: the first warp, after what needs the block's other warps.
  __device__ void arrive_at(int phase) {
    barrier_arrive(shared_ + at_.met);
    const uint32_t parity = num_met_++ % 2;
    if (warp_ > 0) return;
    barrier_wait(shared_ + at_.met, parity);
    if (phase == kDown) publish_largest();
    if (phase == kQkv) add_experts();
    __syncwarp();
    if (lane_ == 0) arrive(meeting_before(phase));
  }
  /// Reads on: once, or where blocks meet before the phase, until all have come. Then all stages fill, one
  /// after the other.
  __device__ void read_on(int phase) {
    const bool meets = phase != kOut && phase != kRouted, leads = meets && warp_ == 0,
               waits = meets && !leads;
    const Arrivals& all = meeting_before(phase);
    if (meets) arrive_at(phase);
#pragma unroll 1
    for (bool more = true; more;) {
      const bool met = leads && __shfl_sync(kAllLanes, lane_ == 0 && all_arrived(all), 0);
      const bool can = can_read();
      if (can) {
        const unsigned last = num_begun_ - 1;
        const bool idle = num_begun_ == num_used_;
        if (waits && !idle) barrier_wait(full(last), parity(last));
        if (waits || idle || barrier_test(full(last), parity(last))) begin_read();
      }
      more = leads ? !met : can && waits;
    }
    if (meets) sync();
  }

  /// use(i, column) for the thread's vectors of a row of width D.
  template <class Use>
  __device__ void for_vecs(const Use& use) const {
#pragma unroll
    for (int i = 0; i < kThreadVecs; ++i) {
      const int column = (i * threads_ + thread_) * kVec;
      if (column < p_.D) use(i, column);
    }
  }

  /// The warp's largest of what is not negative (nor NaN): floats then compare as integers do.
  __device__ static float largest_of_warp(float x) {
    return __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(x)));
  }
  /// As block_sum_and_max() with a vector each thread.
  __device__ SumAndMax reduce(const SumAndMax (&of_vecs)[kThreadVecs]) const {
    auto* const partial = reinterpret_cast<SumAndMax*>(memory_ + at_.partial);
#pragma unroll
    for (int i = 0; i < kThreadVecs; ++i) {
      const SumAndMax x{warp_sum(of_vecs[i].sum), largest_of_warp(of_vecs[i].max)};
      if (lane_ == 0) partial[i * p_.warps + warp_] = x;
    }
    sync();
    const SumAndMax x = lane_ < kThreadVecs * p_.warps ? partial[lane_] : SumAndMax{0, 0};
    return {warp_sum(x.sum), largest_of_warp(x.max)};
  }

  /// As quantize_rows, into row().
  __device__ void quantise_attention() {
    const int vecs = p_.A / kVec;
    uint4 held[kThreadVecs];  // all, unless the attention is wider than the model
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kThreadVecs; ++i) held[i] = load_bf16(p_.attn_out, i * threads_ + thread_, vecs);
#pragma unroll
    for (int i = 0; i < kThreadVecs; ++i) largest = fmaxf(largest, largest_of(held[i]));
#pragma unroll 1
    for (int v = kThreadVecs * threads_ + thread_; v < vecs; v += threads_)
      largest = fmaxf(largest, largest_of(load_bf16(p_.attn_out, v, vecs)));
    auto* const partial = reinterpret_cast<float*>(memory_ + at_.partial);
    largest = largest_of_warp(largest);
    if (lane_ == 0) partial[warp_] = largest;
    sync();
    largest = largest_of_warp(lane_ < p_.warps ? partial[lane_] : 0);
    scale_ = largest / largest_quantum(DType::kI8);
    const Divider by_scale(scale_);
#pragma unroll
    for (int i = 0; i < kThreadVecs; ++i) {
      const int v = i * threads_ + thread_;
      if (v < vecs) quantise(row() + v * kVec, held[i], by_scale);
    }
#pragma unroll 1
    for (int v = kThreadVecs * threads_ + thread_; v < vecs; v += threads_)
      quantise(row() + v * kVec, load_bf16(p_.attn_out, v, vecs), by_scale);
    sync();
  }

  /// The same of the rows of h, whose largest elements are known.
  __device__ void quantise_hidden() const {
    constexpr int kHeld = 8;
    const int vecs = (p_.K * p_.F + p_.SF) / kVec;
    const float largest = thread_ < p_.slots ? __int_as_float(__ldcg(hidden_max + thread_)) : 0.0F;
    uint4 held[kHeld];
#pragma unroll 1
    for (int begin = 0; begin < vecs; begin += kHeld * threads_) {
      const int first = begin + thread_;
#pragma unroll
      for (int i = 0; i < kHeld; ++i) held[i] = load_bf16(p_.h, first + i * threads_, vecs);
      if (begin == 0 && thread_ < p_.slots) {
        const float scale = largest / largest_quantum(DType::kI8);
        h_scale()[thread_] = Divider(scale);
        weight()[thread_] = scale * weight()[thread_];
      }
      sync();  // the scales are there
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int v = first + i * threads_;
        if (v < vecs) quantise(h(0) + v * kVec, held[i], h_scale()[min(p_.by_F.divide(v * kVec), p_.K)]);
      }
    }
    sync();
  }

  /// The largest |h| that the block has found. By its first warp.
  __device__ void publish_largest() const {
    if (lane_ < p_.slots && h_max()[lane_] > 0) atomicMax(hidden_max + lane_, h_max()[lane_]);
  }

  /// x of the block's features, with what the experts gave. By its first warp.
  __device__ void add_experts() const {
#pragma unroll 1
    for (int f = lane_; f < chunks_.own.size(); f += kWarp) {
      float sum = own_x()[f];
#pragma unroll 1
      for (int slot = 0; slot < p_.K; ++slot) sum += low_bf16(y(slot)[f].bits);
      if (p_.SF > 0) {
        const float v = static_cast<float>(shared_sum()[f]) * shared_scale()[f];
        sum += low_bf16(to_bf16(fmaf(v, weight()[p_.K], 0.0F)).bits);
      }
      p_.x[chunks_.own.begin + f] = sum;
    }
  }

  __device__ void load_x(float (&x)[kThreadVecs][kVec]) const {
    for_vecs([&](int i, int column) {
      const auto* from = reinterpret_cast<const float4*>(p_.x + column);
      const float4 a = __ldcg(from), b = __ldcg(from + 1);
      x[i][0] = a.x, x[i][1] = a.y, x[i][2] = a.z, x[i][3] = a.w;
      x[i][4] = b.x, x[i][5] = b.y, x[i][6] = b.z, x[i][7] = b.w;
    });
  }

  /// As residual_norm, of x, or of x + delta in the middle of the layer, where x has been loaded: into row(),
  /// whose scale becomes scale_, and as bf16 for the router, or as the result.
  __device__ void normalise(bool middle, float (&x)[kThreadVecs][kVec],
                            const float (&weight)[kThreadVecs][kVec]) {
    SumAndMax of_vecs[kThreadVecs] = {};
    if (!middle) load_x(x);
    if (middle)
      for_vecs([&](int i, int column) {
        float delta[kVec];
        unpack_bf16(delta, __ldcg(reinterpret_cast<const uint4*>(p_.delta + column)));
#pragma unroll
        for (int j = 0; j < kVec; ++j) x[i][j] += delta[j];
      });
#pragma unroll
    for (int i = 0; i < kThreadVecs; ++i)
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        of_vecs[i].sum += x[i][j] * x[i][j];
        of_vecs[i].max = fmaxf(of_vecs[i].max, fabsf(x[i][j] * weight[i][j]));
      }
    const SumAndMax all = reduce(of_vecs);
    const float rstd = 1 / sqrtf(all.sum * p_.inverse_width + p_.eps);
    const float largest = largest_quantum(DType::kI8);
    const float inverse = all.max > 0 ? largest / all.max : 0;
    BF16* const result = blockIdx.x == 0 ? p_.normed : nullptr;
    BF16* const normed = middle ? reinterpret_cast<BF16*>(memory_ + at_.normed) : result;
    for_vecs([&](int i, int column) {
      float out[kVec];
      if (normed) {
#pragma unroll
        for (int j = 0; j < kVec; ++j) out[j] = x[i][j] * rstd * weight[i][j];
        store_vec(normed + column, out);
      }
#pragma unroll
      for (int j = 0; j < kVec; ++j) out[j] = x[i][j] * weight[i][j] * inverse;
      store_vec(row() + column, out);
    });
    scale_ = all.max * rstd / largest;
    sync();
    if (middle)
      barrier_arrive(shared_ + at_.normed_there);
    else if (blockIdx.x == 0)
      reset();
  }
  /// What all blocks have done with when they have met for the last time, for the next launch.
  __device__ void reset() const {
    for (int i = thread_; i < kMaxTeams; i += threads_) taken[i].pairs = 0;
    if (thread_ < kMaxSlots) hidden_max[thread_] = 0;
    if (thread_ < kSum) arrivals[thread_].count = 0;
    constexpr int kVecs = static_cast<int>(sizeof(Parts) / sizeof(uint4));
    for (int i = thread_; i < kVecs; i += threads_) reinterpret_cast<uint4*>(&parts)[i] = {};
  }

  /// The lane's bytes of a row of `bytes` that the weights multiply: of h or row(), after sync().
  template <int kMost>
  __device__ void load_row(const int8_t* row, int bytes) {
#pragma unroll
    for (int i = 0; i < kMost / kPieceBytes; ++i) {
      const int begin = i * kPieceBytes + lane_ * kLaneBytes;
      row_[i] = {};
      if (begin < bytes) row_[i] = *reinterpret_cast<const uint4*>(row + begin);
    }
  }

  /// By the number of a chunk of the warp.
  __device__ uint32_t full(unsigned chunk) const {
    return shared_ + at_.full + stage_of(chunk) * 8;
  }
  __device__ static uint32_t parity(unsigned chunk) {
    return chunk / kWarpStages % 2;
  }
  __device__ int stage_at(unsigned chunk) const {
    return at_.ring + stage_of(chunk) * at_.stage_bytes;
  }
  __device__ int factors_at(unsigned chunk) const {
    return at_.factors + stage_of(chunk) * 2 * at_.factor_rows * 4;
  }
  /// In one access, of eight bytes.
  __device__ Chunk::Kind kind(unsigned chunk) const {
    const uint2 bits = reinterpret_cast<const uint2*>(memory_ + at_.kinds)[stage_of(chunk)];
    Chunk::Kind kind;
    memcpy(&kind, &bits, sizeof kind);
    return kind;
  }
  __device__ void set_kind(unsigned chunk, const Chunk::Kind& kind) const {
    uint2 bits;
    memcpy(&bits, &kind, sizeof bits);
    reinterpret_cast<uint2*>(memory_ + at_.kinds)[stage_of(chunk)] = bits;
  }
  __device__ int stage_of(unsigned chunk) const {
    return warp_ * static_cast<int>(kWarpStages) + static_cast<int>(chunk % kWarpStages);
  }

  /// Asks for the next pair before its turn, so that it is not waited for.
  __device__ void take_pair() {
    if (lane_ == 0) pair_ = atomicAdd(&taken[chunks_.team].pairs, 1);
  }
  __device__ void next_pair() {
    unread_ = __shfl_sync(kAllLanes, pair_, 0);
  }
  /// Whether there is a chunk to read whose place is known, and a stage for it.
  __device__ bool can_read() {
    if (num_begun_ - num_used_ == kWarpStages) return false;
    if (placed_) return true;
    while (unread_ >= (count_ = chunks_.count[unread_phase_])) {
      const int next = unread_phase_ == kShared ? kDown : unread_phase_ + 1;
      if (next > known_) return false;
      unread_phase_ = next;
      unread_ = warp_;
      if (next == kShared) next_pair();
    }
    const bool pairs = unread_phase_ == kShared;
    const int phase = pairs ? chunks_.phase_of_pair(unread_) : unread_phase_;
    if (phase > known_) return false;
    place_ = chunks_.at(p_, phase, pairs ? unread_ : min(unread_ + lane_ * p_.warps, count_ - 1), expert_);
    place_lane_ = 0;
    return placed_ = true;
  }

  /// Asks for a chunk, into the stage of number n, by one lane.
  __device__ void read(const Chunk& chunk, unsigned n) const {
    const int phase = chunk.kind.phase, rows = chunk.kind.rows, width = chunk.kind.lanes * kLaneBytes;
    const uint32_t barrier = full(n), stage = shared_ + stage_at(n);
    const auto bytes = static_cast<uint32_t>(rows * width);
    barrier_arrive_expect(barrier, bytes);
    if (phase == kDown && chunk.kind.slot >= p_.K) {  // pieces of longer rows
#pragma unroll 1
      for (int r = 0; r < rows; ++r)
        load_bytes(stage + r * width, chunk.from + r * p_.SF, width, barrier, evict_first());
    } else {
      load_bytes(stage, chunk.from, bytes, barrier, evict_first());
    }
    set_kind(n, chunk.kind);
    const float* const bias = phase == kOut ? p_.o_bias : phase == kQkv ? p_.next_bias : nullptr;
    const uint32_t factors = shared_ + factors_at(n);
#pragma unroll 1
    for (int r = 0;;) {
      load_4(factors + r * 4, chunk.scale + r);
      if (bias) load_4(factors + (at_.factor_rows + r) * 4, bias + chunk.kind.feature + r);
      if (++r == rows) break;
    }
    barrier_arrive_after_loads(barrier);
  }
  /// The lane that has the place.
  __device__ void begin_read() {
    if (lane_ == place_lane_) read(place_, num_begun_);
    __syncwarp();
    ++num_begun_;
    if (unread_phase_ != kShared) {
      unread_ += p_.warps;
      placed_ = ++place_lane_ < kWarp && unread_ < count_;
    } else if (!place_.kind.up) {
      place_ = Chunks::up_row_of(p_, place_);
      take_pair();
    } else {
      next_pair();
      placed_ = false;
    }
  }
  /// Begins to read a chunk if none of those from the warp's number `landed` on is on its way; of down's,
  /// which are shorter, two may be. With more, what else a multiprocessor reads, and the last chunk before a
  /// meeting, would wait behind them.
  __device__ void read_ahead(unsigned landed) {
    if (!can_read()) return;
    const unsigned flight = unread_phase_ == kDown ? 2 : 1, last = num_begun_ - flight;
    if (num_begun_ - landed >= flight && !barrier_test(full(last), parity(last))) return;
    begin_read();
  }
  /// sum[r]: the product of row_ and row r of weights, `pitch` bytes apart, of which there are `rows`. A row
  /// has `own` pieces of the lane, of kBegin to kBegin + kCount - 1. All are loaded at once.
  template <int kBegin, int kCount, int kRows>
  __device__ void add_products(int (&sum)[kRows], const uint8_t* w, int pitch, int rows, int own) const {
    uint4 v[kRows][kCount];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        v[r][i] = kBegin + i < own && r < rows
                      ? *reinterpret_cast<const uint4*>(w + r * pitch + (kBegin + i) * kPieceBytes)
                      : uint4{};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      int of_words[4] = {};
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const uint4& row = row_[kBegin + i];
        of_words[0] = __dp4a(static_cast<int>(v[r][i].x), static_cast<int>(row.x), of_words[0]);
        of_words[1] = __dp4a(static_cast<int>(v[r][i].y), static_cast<int>(row.y), of_words[1]);
        of_words[2] = __dp4a(static_cast<int>(v[r][i].z), static_cast<int>(row.z), of_words[2]);
        of_words[3] = __dp4a(static_cast<int>(v[r][i].w), static_cast<int>(row.w), of_words[3]);
      }
      sum[r] += of_words[0] + of_words[1] + of_words[2] + of_words[3];
    }
  }
  /// Of a row of any length.
  __device__ int product(const uint8_t* w, int own) const {
    constexpr int kHalf = kPieces / 2;
    int sum[1] = {};
    add_products<0, kHalf>(sum, w, 0, 1, own);
    if (own > kHalf) add_products<kHalf, kHalf>(sum, w, 0, 1, own);
    return __reduce_add_sync(kAllLanes, sum[0]);
  }
  /// Of a chunk's rows, a lane each.
  __device__ int products(const uint8_t* w, int bytes, int rows, int own) const {
    constexpr int kRows = 3, kFew = 3;
    int sum = 0;
    if (bytes > kFew * kPieceBytes) {
#pragma unroll 1
      for (int r = 0; r < rows; ++r) {
        const int of_row = product(w + r * bytes, own);
        if (lane_ == r) sum = of_row;
      }
      return sum;
    }
#pragma unroll 1
    for (int first = 0; first < rows; first += kRows) {
      int of_rows[kRows] = {};
      add_products<0, kFew>(of_rows, w + first * bytes, bytes, rows - first, own);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int of_row = __reduce_add_sync(kAllLanes, of_rows[r]);
        if (lane_ == first + r) sum = of_row;
      }
    }
    return sum;
  }

  /// The warp's chunks of a phase.
  __device__ void multiply(int phase) {
    const bool pairs = phase == kShared || phase == kRouted;
    Chunk::Kind next{};
    if (num_used_ != num_begun_) next = kind(num_used_);  // else a lane may be writing it
#pragma unroll 1
    while (num_used_ != num_begun_ && next.phase == phase) {
      const Chunk::Kind chunk = next;
      const int bytes = chunk.lanes * kLaneBytes;
      if (phase == kDown) load_row<kMaxHidden>(h(chunk.slot), bytes);
      barrier_wait(full(num_used_), parity(num_used_));
      read_ahead(num_used_ + 1);
      next = kind(num_used_ + 1);  // like the factors early: what a warp waits for in a chunk bounds it
      const uint8_t* const w = memory_ + stage_at(num_used_) + lane_ * kLaneBytes;
      const auto* const factors = reinterpret_cast<const float*>(memory_ + factors_at(num_used_));
      const int of_row = lane_ < chunk.rows ? lane_ : 0, own = (chunk.lanes - lane_ + kWarp - 1) / kWarp;
      const float factor = factors[of_row], bias = factors[at_.factor_rows + of_row];
      if (pairs) {
        const int sum = product(w, own);
        if (lane_ == num_pairs_) {
          (chunk.up ? up_ : gate_) = fmaf(static_cast<float>(sum) * factor, scale_, 0.0F);
          pair_slot_ = chunk.slot, pair_feature_ = chunk.feature;
        }
        if (chunk.up && ++num_pairs_ == kWarp) finish_pairs();
      } else {
        const int sum = products(w, bytes, chunk.rows, own);
        if (lane_ < chunk.rows) {
          if (phase == kDown && chunk.slot >= p_.K)
            atomicAdd(shared_sum() + chunk.feature + lane_ - chunks_.own.begin, sum);
          else
            finish(chunk, static_cast<float>(sum) * factor, bias);
        }
      }
      __syncwarp();  // all lanes have read the stage
      ++num_used_;
    }
    if (phase == kRouted) finish_pairs();
  }

  /// v: a row's product times the scale of the weights. A lane each row.
  __device__ void finish(const Chunk::Kind& chunk, float v, float bias) const {
    const int feature = chunk.feature + lane_;
    if (chunk.phase == kDown) {
      y(chunk.slot)[feature - chunks_.own.begin] = to_bf16(fmaf(v, weight()[chunk.slot], 0.0F));
    } else {
      const bool biased = chunk.phase == kOut ? p_.o_bias : p_.next_bias;
      BF16* const to = chunk.phase == kOut ? p_.delta : p_.qkv;
      to[feature] = to_bf16(fmaf(v, scale_, biased ? bias : 0.0F));
    }
  }
  /// Of the pairs that lanes hold: all at once, because a pair's takes as long.
  __device__ void finish_pairs() {
    if (lane_ < num_pairs_) {
      const BF16 hidden = to_bf16(swift::silu(gate_) * up_);
      p_.h[static_cast<int64_t>(pair_slot_) * p_.F + pair_feature_] = hidden;
      atomicMax(h_max() + pair_slot_, __float_as_int(fabsf(low_bf16(hidden.bits))));
    }
    num_pairs_ = 0;
  }

  const Params& p_;
  const Layout& at_;
  const Chunks& chunks_;
  uint8_t* memory_;
  uint32_t shared_;
  const int* expert_;
  int thread_, threads_, lane_, warp_;
  unsigned num_begun_ = 0, num_used_ = 0;  // chunks of the warp
  // The chunk to be read next: in this phase (kShared for all pairs) number unread_ of count_. If it is
  // `placed`, the lane place_lane_ has its place, and the lanes that follow those of the warp's next ones.
  int unread_phase_ = kOut, unread_, count_ = 0;
  bool placed_ = false;
  int place_lane_ = 0;
  Chunk place_{};
  int pair_ = 0;          // in lane 0: the pair after unread_
  uint32_t num_met_ = 0;  // meetings of the block
  int known_ = kOut;      // the last phase of which it is known where the chunks are
  // A pair each lane, whose products wait for the others':
  int num_pairs_ = 0, pair_slot_ = 0, pair_feature_ = 0;
  float gate_ = 0, up_ = 0;
  float scale_ = 0;  // of row()
  uint4 row_[kPieces]{};
};

}  // namespace moge::ops::cuda::token
