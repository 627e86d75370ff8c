// matmul_tn: the weight gradient c += a^T @ b, per group. The inner dimension is the rows, so it is cut into
// batches that fit in L3: both operands of a batch are packed, then multiplied into c, which carries each
// element's sum from batch to batch. Where a batch is cut changes no bit: a sum goes on where it stopped.
#include "ops/cpu/isa.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/matmul_block.h"
#include "ops/cpu/matmul_groups.h"
#include "ops/cpu/matmul_pack.h"

namespace moge::ops::cpu {

namespace {

constexpr int64_t kBatchBytes = int64_t{4} << 20;
/// Rows of c whose words of `a` lie together, [N / 48][steps][48]: three cache lines a step serve eight
/// tiles.
constexpr int64_t kStrip = 48;
/// Rows of one group in a batch. Cut at even distances from the group's begin, so that bf16 pairs stay whole.
struct Segment {
  int64_t group;
  int64_t begin;
  int64_t rows;
  int64_t step;  ///< where its packed words start, counted over the batch
};

struct Plan {
  explicit Plan(const MatmulTN& t)
      : per_word(t.compute == DType::kBF16 ? 2 : 1), N(t.c.dim(-2)), K(t.c.dim(-1)) {
    const int64_t R = t.a_row_ids ? t.a_row_ids.dim(0) : t.a.dim(0);
    const int64_t G = t.offsets ? t.offsets.dim(0) - 1 : 1;
    const int64_t a_step_bytes = align_up(N, vec::kPanelUnit) * 4;
    const int64_t b_step_bytes = align_up(K, vec::kPanelUnit) * 4;
    batch_rows =
        std::min(std::max<int64_t>(kBatchBytes / (a_step_bytes + b_step_bytes) / 64 * 64, 256) * per_word,
                 align_up(R, 2));
    max_segments = std::min(G, batch_rows);
    max_steps = batch_rows / per_word + max_segments;
    a_bytes = max_steps * a_step_bytes;
    b_bytes = max_steps * b_step_bytes;
    segments_bytes = align_up(max_segments * static_cast<int64_t>(sizeof(Segment)));
  }
  int64_t bytes() const { return a_bytes + b_bytes + segments_bytes; }

  int64_t per_word;
  int64_t N, K;
  int64_t batch_rows, max_segments, max_steps;
  int64_t a_bytes, b_bytes, segments_bytes;
};

/// Walks the groups' rows in order, a batch at a time.
class Batches {
 public:
  Batches(const Groups& groups, const Plan& plan) : groups_(groups), plan_(plan), row_(groups.begin(0)) {}
  /// The next batch's segments; 0 at the end.
  int64_t next(Segment* segments) {
    int64_t count = 0, rows = 0, step = 0;
    while (group_ < groups_.count() && rows < plan_.batch_rows && count < plan_.max_segments) {
      const int64_t left = groups_.end(group_) - row_;
      const int64_t room = (plan_.batch_rows - rows) & ~int64_t{1};
      const int64_t take = std::min(left, room);
      if (left > 0 && take == 0) break;
      if (take > 0) {
        segments[count++] = {group_, row_, take, step};
        rows += take;
        step += (take + plan_.per_word - 1) / plan_.per_word;
        row_ += take;
      }
      if (take == left && ++group_ < groups_.count()) row_ = groups_.begin(group_);
    }
    return count;
  }

 private:
  const Groups& groups_;
  const Plan& plan_;
  int64_t group_ = 0;
  int64_t row_;
};

/// One product's packing and multiplying of batches.
class OuterProduct {
 public:
  OuterProduct(ExecContext& ctx, const MatmulTN& t, const vec::MatmulIsa& isa, const Plan& plan,
               std::span<std::byte> ws)
      : pool_(*ctx.pool),
        t_(t),
        kernels_(t.compute == DType::kBF16 ? isa.bf16 : isa.f32),
        plan_(plan),
        a_rows_(t.a, t.a_row_ids),
        b_rows_(t.b, t.b_row_ids),
        a_(reinterpret_cast<uint32_t*>(ws.data())),
        b_(reinterpret_cast<uint32_t*>(ws.data() + plan.a_bytes)),
        segments_(reinterpret_cast<Segment*>(ws.data() + plan.a_bytes + plan.b_bytes)) {}

  void run(const Groups& groups) {
    Batches batches(groups, plan_);
    while (const int64_t count = batches.next(segments_)) {
      pack(count);
      multiply(count);
    }
  }

 private:
  Panels panels(const Segment& s) const { return {s.rows, plan_.K, plan_.per_word}; }

  void pack(int64_t count) {
    int64_t parts = 0;
    for (int64_t i = 0; i < count; ++i) parts += parts_of(segments_[i]);
    pool_.run(2 * parts, [&](int64_t task, int) {
      int64_t part = task / 2;
      const Segment* s = segments_;
      for (; part >= parts_of(*s); ++s) part -= parts_of(*s);
      const int64_t begin = part * kPackSteps;
      const int64_t end = std::min(begin + kPackSteps, panels(*s).steps);
      for (int64_t step = begin; step < end; ++step) {
        prefetch_step(task % 2 == 0 ? a_rows_ : b_rows_, *s, step + kPrefetchSteps,
                      task % 2 == 0 ? plan_.N : plan_.K);
        const auto [row0, row1] = rows_of(task % 2 == 0 ? a_rows_ : b_rows_, *s, step);
        kernels_.pack_step_f32(task % 2 == 0 ? a_strips(*s) : b_strips(*s), step, row0, row1);
      }
    });
  }
  int64_t parts_of(const Segment& s) const { return (panels(s).steps + kPackSteps - 1) / kPackSteps; }

  vec::Strips a_strips(const Segment& s) const {
    return {a_ + s.step * align_up(plan_.N, vec::kPanelUnit), panels(s).steps, plan_.N, kStrip};
  }
  vec::Strips b_strips(const Segment& s) const {
    return panels(s).strips(b_ + s.step * align_up(plan_.K, vec::kPanelUnit));
  }
  /// The rows that make up a step; the second is null in f32 and past an odd end.
  std::pair<const float*, const float*> rows_of(const GatheredRows<float>& rows, const Segment& s,
                                                int64_t step) const {
    const int64_t r = step * plan_.per_word;
    return {rows[s.begin + r], plan_.per_word == 2 && r + 1 < s.rows ? rows[s.begin + r + 1] : nullptr};
  }

  void prefetch_step(const GatheredRows<float>& rows, const Segment& s, int64_t step, int64_t n) const {
    if (step * plan_.per_word >= s.rows) return;
    const auto [row0, row1] = rows_of(rows, s, step);
    prefetch_row(row0, n);
    if (row1) prefetch_row(row1, n);
  }

  void multiply(int64_t count) {
    const int64_t strips = (plan_.N + kStrip - 1) / kStrip;
    const Panels whole(plan_.batch_rows / std::max<int64_t>(count, 1), plan_.K, plan_.per_word);
    const int64_t run_panels = panels_per_task(whole, strips * count, kStrip, pool_.num_threads());
    const int64_t runs = (whole.count() + run_panels - 1) / run_panels;
    pool_.run(count * runs * strips, [&](int64_t task, int) {
      const Segment& s = segments_[task / (runs * strips)];
      const int64_t n = task % strips * kStrip;
      const int64_t width = std::min(kStrip, plan_.N - n);
      const Panels p = panels(s);
      const LeftRows a{a_strips(s).data + n * p.steps, 1, align_up(width, vec::kPanelUnit), nullptr};
      const int64_t first = task / strips % runs * run_panels;
      for (int64_t panel = first; panel < std::min(first + run_panels, p.count()); ++panel) {
        float* c = t_.c.ptr<float>() + (t_.offsets ? s.group * t_.c.stride(0) : 0) + n * t_.c.stride(-2) +
                   panel * vec::kPanelCols;
        multiply_block(kernels_, a, width, b_strips(s).data, p, panel,
                       {c, t_.c.stride(-2), nullptr, nullptr, 0, true}, nullptr);
      }
    });
  }

  ThreadPool& pool_;
  const MatmulTN& t_;
  const vec::MatmulKernels& kernels_;
  const Plan& plan_;
  GatheredRows<float> a_rows_, b_rows_;
  uint32_t* a_;
  uint32_t* b_;
  Segment* segments_;
};

template <const vec::MatmulIsa& isa>
void run_outer(ExecContext& ctx, const MatmulTN& t, std::span<std::byte> ws) {
  const Plan plan(t);
  const Groups groups("matmul_tn", t.offsets, t.a_row_ids ? t.a_row_ids.dim(0) : t.a.dim(0));
  if (groups.count() == 0 || plan.N == 0 || plan.K == 0) return;
  OuterProduct(ctx, t, isa, plan, ws).run(groups);
}

int64_t workspace(const ExecContext&, const MatmulTN& t) {
  return Plan(t).bytes();
}

Refusal supports_avx512(const MatmulTN& t) {
  const Refusal no = needs_avx512(t);
  if (no.empty() && t.compute == DType::kBF16 && !cpu_info().avx512_bf16)
    return "this CPU has no AVX-512 BF16 (vdpbf16ps)";
  return no;
}

}  // namespace

std::vector<Impl<MatmulTN>> matmul_tn_impls() {
  return {{"cpu.avx512", DeviceKind::kCpu, supports_avx512, run_outer<vec::avx512::matmul>, workspace},
          {"cpu.avx2", DeviceKind::kCpu, needs_avx2<MatmulTN>, run_outer<vec::avx2::matmul>, workspace},
          {"cpu.ref", DeviceKind::kCpu, supports_all<MatmulTN>, matmul_tn_ref, nullptr}};
}

}  // namespace moge::ops::cpu
