// What the parts of the token layer's kernel share: its parameters, shared memory, and the order in which a
// block reads its share of the weights.
//
// One block a multiprocessor stays for the whole layer. Each of its warps streams rows of weights through a
// few stages of its own, in the order in which they are needed and without regard to what they wait for, so
// that memory goes on working while the blocks meet; then it multiplies them by the token's row. i8 sums are
// exact, so that they may be taken in any order.
#pragma once
#include "ops/cuda/reduce.cuh"
#include "ops/cuda/router_steps.cuh"
#include "ops/cuda/sm90/barrier.cuh"
#include "ops/quant_matmul.h"

namespace moge::ops::cuda::token {

inline constexpr int kLaneBytes = 16;                   ///< that a lane multiplies at once
inline constexpr int kPieceBytes = kWarp * kLaneBytes;  ///< and a warp
inline constexpr int kPieces = 10;                      ///< of the longest row
inline constexpr int kMaxWidth = kPieces * kPieceBytes;
inline constexpr int kMaxRouted = 2 * kWarp;
inline constexpr int kMaxHidden = 2048;  ///< width of a routed expert
inline constexpr int kThreadVecs = 2;    ///< of a row of the width of the model
inline constexpr int kMaxWarps = kMaxWidth / kVec / kWarp / kThreadVecs;  ///< that multiply
inline constexpr int kMaxThreads = (kMaxWarps + 1) * kWarp;               ///< and the one that routes
inline constexpr int kMaxSlots = 32;  ///< of h: routed experts, and the shared one in pieces of their width
inline constexpr int kMaxFeatures = 1 << 16;  ///< of a product: Chunk::Kind::feature
inline constexpr int kMaxRows = 32;           ///< of a chunk: a lane each
inline constexpr unsigned kWarpStages = 4;    ///< chunks of a warp that are on their way or multiplied

/// Where things lie in a block's shared memory, in bytes. Made on the host: in constant memory it costs no
/// registers.
struct Layout {
  int ring;            // [warps][kWarpStages][stage_bytes]: weights
  int row;             // [kMaxWidth] i8: what the weights multiply, but down's
  int h;               // [K][F] and [SF] i8: what down's multiply
  int normed;          // [D] bf16: what the router reads, before h
  int y;               // [K][y_pitch] bf16: the routed experts' results, of the block's features
  int shared_sum;      // [y_pitch] i32: the shared expert's products, of these
  int shared_scale;    // [y_pitch] f32: and the scales of its weights
  int x;               // [y_pitch] f32: the residual stream, of the block's features
  int h_scale;         // [slots]: dividers by the scales of h
  int h_max;           // [slots]: of the |h| that the block has found, as the bits of a float
  int expert, weight;  // [slots], by slot; weights become factors of down's products
  int keys;            // of select()
  int partial;         // of the block's reductions
  int factors;         // [warps][kWarpStages][2][factor_rows] f32: scales of the weights, and biases
  int kinds;           // [warps][kWarpStages] Chunk::Kind
  int full;            // [warps][kWarpStages]: barriers, a stage has arrived
  int routed;          // barrier: expert and weight are there
  int normed_there;    // barrier: normed is
  int met;             // barrier: the block's warps have come to a meeting
  int chunks;          // Chunks
  int stage_bytes, factor_rows, y_pitch;
  int bytes;  // of all
};

/// x / d without the twenty instructions of a division, for 0 <= x < 2^20 and 0 < d <= 2^11: then
/// x (d inverse - 2^31) < 2^31.
class SmallDivisor {
 public:
  SmallDivisor() = default;
  __host__ __device__ explicit SmallDivisor(unsigned d) : inverse_(((1U << 31) + d - 1) / d) {}
  __device__ int divide(int x) const {
    return static_cast<int>(__umulhi(static_cast<unsigned>(x) * 2U, inverse_));
  }

 private:
  unsigned inverse_;
};

/// Part of a row of things that are given out evenly.
struct Share {
  int begin, end;
  __device__ int size() const { return end - begin; }
};
/// n things, at most 2^16, given out evenly: without divisions, which a block's first instructions would wait
/// for. No share has 2^16.
class Shares {
 public:
  Shares() = default;
  Shares(int n, int to) : each_(static_cast<unsigned>(((int64_t{n} << 16) + to - 1) / to)) {}
  __device__ Share of(unsigned from, unsigned to) const { return {before(from), before(to)}; }
  __device__ Share of(unsigned i) const { return of(i, i + 1); }

 private:
  __device__ int before(unsigned i) const {
    return static_cast<int>(static_cast<unsigned long long>(each_) * i >> 16);
  }
  unsigned each_;  ///< in 2^-16, rounded up
};

struct Params {
  float* x;
  BF16* qkv;
  BF16* normed;
  const BF16* attn_out;
  const int8_t* o_proj;
  const float* o_scale;
  const float* o_bias;
  const float* norm;
  const int8_t* gate_up;
  const float* gate_up_scale;
  const int8_t* down;
  const float* down_scale;
  const int8_t* shared_gate_up;
  const float* shared_gate_up_scale;
  const int8_t* shared_down;
  const float* shared_down_scale;
  const float* next_norm;
  const int8_t* next_qkv;
  const float* next_scale;
  const float* next_bias;
  RouteParams<float> route;  ///< of which x, parts and the outputs are not used
  // Between the blocks:
  BF16* delta;  // [D]
  BF16* h;      // [K, F] and [SF]
  int D, A, F, SF, N, E, K;
  SmallDivisor by_F;
  Shares of_D, of_N, of_SF, of_pairs;  ///< a block's; pairs: K x F
  int teams;
  Shares of_blocks;  ///< whose shares of pairs a team has: as many as it has blocks, or one more or less
  int out_rows, down_rows, qkv_rows;  ///< of a chunk
  SmallDivisor by_out_rows, by_down_rows, by_qkv_rows;
  int down_slots;  ///< K and the pieces of the shared expert's row
  int slots;       ///< K routed experts of a token, then the shared one
  int warps;       ///< that multiply
  float eps, inverse_width;
  Layout at;
};

/// What the warps that multiply do in turn.
enum Phase { kOut, kShared, kRouted, kDown, kQkv, kNumPhases };

/// Rows of weights that arrive together: adjacent ones, or pieces of such, because the shared expert's rows
/// of down are longer than a stage. They are cut as wide as a routed expert's, and their sums added in
/// shared_sum.
struct Chunk {
  const int8_t* from;
  const float* scale;  ///< of each row
  struct alignas(8) Kind {
    uint8_t phase, rows;
    uint8_t slot;      ///< of h; of down from K on a piece of the shared expert's
    bool up;           ///< the second row of a pair
    uint16_t feature;  ///< of the first row
    uint16_t lanes;    ///< that hold kLaneBytes each of a row
  } kind;
};

/// Multiprocessors do not get the same share of the memory's rate. So a team of blocks from all over the
/// device shares pairs of gate and up rows, and each warp takes the next one that is left.
inline constexpr int kTeamBlocks = 12;
inline constexpr int kMaxTeams = 64;

/// What a block reads, in shared memory: in each phase chunks 0 to count - 1.
struct Chunks {
  __device__ explicit Chunks(const Params& p)
      : team(static_cast<int>(blockIdx.x) % p.teams), own(p.of_D.of(blockIdx.x)) {
    const Share blocks = p.of_blocks.of(static_cast<unsigned>(team));
    const auto from = static_cast<unsigned>(blocks.begin), to = static_cast<unsigned>(blocks.end);
    qkv = p.of_N.of(blockIdx.x);
    shared = p.of_SF.of(from, to);
    routed = p.of_pairs.of(from, to);
    slot_chunks = p.by_down_rows.divide(own.size() + p.down_rows - 1);
    by_slot_chunks = SmallDivisor(static_cast<unsigned>(max(slot_chunks, 1)));
    count[kOut] = num_out(p, own);
    count[kShared] = shared.size() + routed.size();
    count[kDown] = p.down_slots * slot_chunks;
    count[kQkv] = p.by_qkv_rows.divide(qkv.size() + p.qkv_rows - 1);
  }
  /// o_proj's, which are read before the others' places are known.
  static __device__ int num_out(const Params& p, const Share& own) {
    return p.by_out_rows.divide(own.size() + p.out_rows - 1);
  }
  static __device__ Chunk out(const Params& p, const Share& own, int i) {
    return dense(p.o_proj, p.o_scale, kOut, own, p.out_rows, i, p.A);
  }

  __device__ int phase_of_pair(int i) const { return i < shared.size() ? kShared : kRouted; }

  /// A pair's first row; up_row_of() makes the second of it. `expert` [slots], shared memory.
  __device__ Chunk at(const Params& p, int phase, int i, const int* expert) const {
    if (phase == kOut) return out(p, own, i);
    if (phase == kQkv) return dense(p.next_qkv, p.next_scale, phase, qkv, p.qkv_rows, i, p.D);
    if (phase == kDown) {
      const int slot = by_slot_chunks.divide(i), part = slot - p.K, row = i - slot * slot_chunks;
      if (part >= 0) {
        const int begin = part * p.F;
        Chunk chunk = dense(p.shared_down, p.shared_down_scale, phase, own, p.down_rows, row, p.SF);
        chunk.from += begin;
        chunk.kind.slot = static_cast<uint8_t>(slot);
        chunk.kind.lanes = lanes_of(min(p.F, p.SF - begin));
        return chunk;
      }
      const int group = expert[slot] * p.D;
      Chunk chunk = dense(p.down + static_cast<int64_t>(group) * p.F, p.down_scale + group, phase, own,
                          p.down_rows, row, p.F);
      chunk.kind.slot = static_cast<uint8_t>(slot);
      return chunk;
    }
    const bool is_shared = phase == kShared;
    const int pair = is_shared ? shared.begin + i : routed.begin + i - shared.size();
    const int slot = is_shared ? p.K : p.by_F.divide(pair), feature = is_shared ? pair : pair - slot * p.F;
    const int row = (is_shared ? 0 : expert[slot] * 2 * p.F) + gate_row(feature);
    return {(is_shared ? p.shared_gate_up : p.gate_up) + static_cast<int64_t>(row) * p.D,
            (is_shared ? p.shared_gate_up_scale : p.gate_up_scale) + row,
            {static_cast<uint8_t>(phase), 1, static_cast<uint8_t>(slot), false,
             static_cast<uint16_t>(feature), lanes_of(p.D)}};
  }
  static __device__ Chunk up_row_of(const Params& p, Chunk gate) {
    gate.from += kGateUpBlock * p.D;
    gate.scale += kGateUpBlock;
    gate.kind.up = true;
    return gate;
  }

  int team;
  Share own, qkv;        ///< the block's, of D (rows of o_proj and of every expert's down) and of N
  Share shared, routed;  ///< the team's, of SF and of K x F: pairs of a gate and an up row
  int slot_chunks;
  SmallDivisor by_slot_chunks;
  int count[kNumPhases];  ///< of chunks; kShared's and kRouted's together, the team's, at kShared

 private:
  static __device__ Chunk dense(const int8_t* w, const float* scale, int phase, const Share& share, int rows,
                                int i, int bytes) {
    const int first = share.begin + i * rows;
    return {w + static_cast<int64_t>(first) * bytes,
            scale + first,
            {static_cast<uint8_t>(phase), static_cast<uint8_t>(min(rows, share.end - first)), 0, false,
             static_cast<uint16_t>(first), lanes_of(bytes)}};
  }
  static __device__ uint16_t lanes_of(int bytes) { return static_cast<uint16_t>(bytes / kLaneBytes); }
  /// gate_up_row() in few instructions.
  static __device__ int gate_row(int feature) {
    static_assert(gate_up_row(kGateUpBlock - 1, false) == kGateUpBlock - 1 &&
                  gate_up_row(kGateUpBlock, false) == 2 * kGateUpBlock);
    return feature + (feature & -static_cast<int>(kGateUpBlock));
  }
};

/// Where all blocks of the grid meet: each adds one to the meeting's counter, which is zero before the first
/// does. The last meeting's is set back in the next launch, the others' after the last.
enum Meeting { kDelta, kHidden, kSum, kNumMeetings };
struct alignas(128) Arrivals {
  unsigned count;
};
/// Pairs that a team has taken; zero between launches.
struct alignas(128) Taken {
  int pairs;
};
/// Parts of the logits, of every slice and expert. A number says itself whether it has come: it is stored
/// with its bits turned, and 0 means that it has not (a NaN of ones becomes another). So between launches.
struct alignas(16) Parts {
  uint32_t bits[kSlices][kMaxRouted];
};
__device__ __forceinline__ void tell(uint32_t& to, float x) {
  const uint32_t turned = max(~__float_as_uint(x), 1U);
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(&to), "r"(turned) : "memory");
}
__device__ __forceinline__ uint32_t look(const uint32_t& from) {
  uint32_t bits;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(&from) : "memory");
  return bits;
}
/// By one thread: what it and those that it has met at a barrier wrote is then visible to all threads that
/// have met at one with a thread that saw all_arrived().
__device__ __forceinline__ void arrive(Arrivals& arrivals) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(&arrivals.count) : "memory");
}
__device__ __forceinline__ bool all_arrived(const Arrivals& arrivals) {
  unsigned now;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(&arrivals.count) : "memory");
  return now == gridDim.x;
}

// In device memory, for all launches, which follow each other.
static __device__ Arrivals arrivals[kNumMeetings];
/// The largest |h| of each slot, as the bits of a float; zeros between launches.
static __device__ int hidden_max[kMaxSlots];
static __device__ Taken taken[kMaxTeams];
static __device__ Parts parts;

}  // namespace moge::ops::cuda::token
