// moge bench ops: the operators of one layer alone.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/bench_device.h"
#include "cli/model_path.h"
#include "core/transfer.h"
#include "model/weights.h"
#include "ops/attention.h"
#include "ops/quant_matmul.h"
#include "ops/random_fill.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

class OpsBench {
 public:
  explicit OpsBench(const DeviceBenchOptions& o)
      : options_(o), backend_(cuda_backend()), ctx_{.device = {DeviceKind::kCuda, 0}, .backend = &backend_} {}

  /// [rows, k] x [n, k]^T, per expert when there are several: every expert gets the same number of rows.
  void matmul(const char* what, int64_t experts, int64_t rows, int64_t n, int64_t k, bool silu_mul,
              DType dtype) {
    const bool grouped = experts > 1, scaled = dtype != DType::kBF16;
    const int64_t R = rows * experts;
    // Enough copies of the weights that the L2 never holds the next one.
    const int64_t copies =
        std::max<int64_t>(1, 3 * backend_.info().l2_bytes / (experts * n * k * size_of(dtype)) + 1);
    const auto allocate = [&](Arena& arena, std::vector<ops::QuantMatmul>& calls) {
      const auto f32 = [&](bool present, Shape shape) {
        return present ? arena.alloc(DType::kF32, shape) : Tensor();
      };
      const Tensor c = arena.alloc(DType::kBF16, {R, silu_mul ? n / 2 : n});
      const Tensor a = arena.alloc(dtype, {R, k}), a_scale = f32(scaled, {R});
      const Tensor offsets = grouped ? arena.alloc(DType::kI32, {experts + 1}) : Tensor();
      for (int64_t i = 0; i < copies; ++i)
        calls.push_back({.c = c,
                         .a = a,
                         .a_scale = a_scale,
                         .w = grouped ? arena.alloc(dtype, {experts, n, k}) : arena.alloc(dtype, {n, k}),
                         .w_scale = !scaled   ? Tensor()
                                    : grouped ? arena.alloc(DType::kF32, {experts, n})
                                              : arena.alloc(DType::kF32, {n}),
                         .offsets = offsets,
                         .silu_mul = silu_mul});
    };
    std::vector<ops::QuantMatmul> calls;
    Arena plan;
    allocate(plan, calls);
    calls.clear();
    Arena memory(plan.used_bytes(), "matmul benchmark", &backend_);
    allocate(memory, calls);
    for (const ops::QuantMatmul& call : calls) {
      ops::random_fill(ctx_, {.x = call.w, .std = 1, .seed = 1});
      if (scaled) ops::random_fill(ctx_, {.x = call.w_scale, .std = 1e-3F, .seed = 2});
    }
    ops::random_fill(ctx_, {.x = calls[0].a, .std = 1, .seed = 3});
    if (scaled) ops::random_fill(ctx_, {.x = calls[0].a_scale, .std = 1e-3F, .seed = 4});
    if (grouped) {
      std::vector<int32_t> offsets(static_cast<size_t>(experts) + 1);
      for (size_t e = 0; e < offsets.size(); ++e)
        offsets[e] = static_cast<int32_t>(static_cast<int64_t>(e) * rows);
      upload(ctx_, calls[0].offsets, offsets.data());
      synchronize(ctx_, "ops benchmark");
    }
    const double seconds =
        time([&](ExecContext& ctx, size_t i) { ops::quant_matmul(ctx, calls[i % calls.size()]); });
    const double bytes = static_cast<double>(calls[0].w.bytes() + calls[0].a.bytes() + calls[0].c.bytes());
    report(what, grouped ? "grouped_matmul" : "matmul",
           {{"m", rows}, {"n", n}, {"k", k}, {"experts", experts}, {"dtype", name_of(dtype)}}, seconds, bytes,
           2.0 * static_cast<double>(R) * static_cast<double>(n) * static_cast<double>(k));
  }

  void attention(const spec::ModelConfig& c, int64_t batch, int64_t context, DType kv) {
    constexpr int64_t kPageSize = 64;
    const int64_t pages = (context + kPageSize - 1) / kPageSize, P = pages * batch;
    const int64_t H = c.num_attention_heads, KV = c.num_key_value_heads, Dh = c.head_dim;
    const bool scaled = kv != DType::kBF16;
    ops::PagedAttention call{.scale = 0.1F, .decode_rows = 1};
    const auto allocate = [&](Arena& arena) {
      call.out = arena.alloc(DType::kBF16, {batch, H, Dh});
      call.q = arena.alloc(DType::kBF16, {batch, H, Dh});
      for (Tensor* t : {&call.k_pages, &call.v_pages}) *t = arena.alloc(kv, {P, KV, kPageSize, Dh});
      if (scaled)
        for (Tensor* t : {&call.k_scales, &call.v_scales}) *t = arena.alloc(DType::kF32, {P, KV, kPageSize});
      call.block_table = arena.alloc(DType::kI32, {batch, pages});
      call.cu_q = arena.alloc(DType::kI32, {batch + 1});
      call.kv_lens = arena.alloc(DType::kI32, {batch});
    };
    Arena plan;
    allocate(plan);
    Arena memory(plan.used_bytes(), "attention benchmark", &backend_);
    allocate(memory);
    for (const Tensor& t : {call.q, call.k_pages, call.v_pages, call.k_scales, call.v_scales})
      if (t) ops::random_fill(ctx_, {.x = t, .std = 1e-2F, .seed = 5});
    std::vector<int32_t> table(static_cast<size_t>(P)), cu_q, lens(static_cast<size_t>(batch));
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
    for (int64_t b = 0; b <= batch; ++b) cu_q.push_back(static_cast<int32_t>(b));
    std::ranges::fill(lens, static_cast<int32_t>(context));
    upload(ctx_, call.block_table, table.data());
    upload(ctx_, call.cu_q, cu_q.data());
    upload(ctx_, call.kv_lens, lens.data());
    synchronize(ctx_, "ops benchmark");
    const double seconds = time([&](ExecContext& ctx, size_t) { ops::paged_attention(ctx, call); });
    report("attention", "attention",
           {{"batch", batch},
            {"context", context},
            {"heads", H},
            {"kv_heads", KV},
            {"head_dim", Dh},
            {"dtype", name_of(kv)}},
           seconds, 2.0 * static_cast<double>(batch * context * KV * Dh * size_of(kv)),
           4.0 * static_cast<double>(batch * context * H * Dh));
  }

  void finish() const {
    if (options_.json) std::cout << out_.dump(1) << '\n';
  }
  void begin() {
    copy_ = backend_.copy_bandwidth();
    out_ = {{"device", backend_.info().name},
            {"model", options_.model.model},
            {"copy_bandwidth", copy_},
            {"ops", ordered_json::array()}};
    if (!options_.json)
      std::cout << backend_.info().name << ", copy bandwidth " << copy_ * 1e-9 << " GB/s\n"
                << std::left << std::setw(14) << "op" << std::setw(86) << "shape" << std::right
                << std::setw(10) << "us" << std::setw(9) << "GB/s" << std::setw(8) << "% copy" << std::setw(9)
                << "TFLOP/s\n";
  }

 private:
  /// Median seconds of a call inside a recorded graph of several, over which launches do not show.
  double time(const std::function<void(ExecContext&, size_t)>& call) {
    constexpr size_t kCalls = 8;
    constexpr int kRepeats = 7;
    Workspace planner;
    ExecContext planning = ctx_;
    planning.workspace = &planner;
    planning.planning = true;
    call(planning, 0);
    Workspace workspace(planner.planned_bytes(), &backend_);
    ExecContext ctx = ctx_;
    ctx.workspace = &workspace;
    call(ctx, 0);
    backend_.begin_capture();
    for (size_t i = 0; i < kCalls; ++i) call(ctx, i);
    const std::unique_ptr<Graph> graph = backend_.end_capture();
    graph->launch();
    std::vector<double> seconds;
    for (int r = 0; r < kRepeats; ++r) {
      const auto begin = backend_.make_event(), end = backend_.make_event();
      begin->record();
      graph->launch();
      end->record();
      seconds.push_back(end->seconds_since(*begin) / kCalls);
    }
    std::ranges::sort(seconds);
    return seconds[seconds.size() / 2];
  }

  void report(const char* what, const char* op, const ordered_json& shape, double seconds, double bytes,
              double flops) {
    out_["ops"].push_back({{"op", op},
                           {"what", what},
                           {"shape", shape},
                           {"ms", seconds * 1e3},
                           {"bytes_per_second", bytes / seconds},
                           {"flops_per_second", flops / seconds}});
    if (options_.json) return;
    std::cout << std::left << std::setw(14) << what << std::setw(86) << shape.dump() << std::right
              << std::fixed << std::setprecision(1) << std::setw(10) << seconds * 1e6 << std::setw(9)
              << bytes / seconds * 1e-9 << std::setw(8) << 100 * bytes / seconds / copy_ << std::setw(8)
              << flops / seconds * 1e-12 << '\n';
  }

  const DeviceBenchOptions& options_;
  Backend& backend_;
  ExecContext ctx_;
  double copy_ = 0;
  ordered_json out_;
};

}  // namespace

void bench_device_ops(const DeviceBenchOptions& o) {
  const spec::ModelConfig c = spec::load_model_config(find_model(o.model.model));
  const int64_t D = c.hidden_size, F = model::expert_width(c);
  const int64_t experts = c.num_experts + model::num_always_on_experts(c);
  OpsBench bench(o);
  bench.begin();
  for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    bench.matmul("qkv_proj", 1, rows, c.q_dim() + 2 * c.kv_dim(), D, false, o.model.dtype);
    bench.matmul("o_proj", 1, rows, D, c.q_dim(), false, o.model.dtype);
    bench.matmul("lm_head", 1, std::min<int64_t>(rows, 512), c.vocab_size, D, false, DType::kBF16);
    if (rows > 1024 && experts > 1) continue;
    bench.matmul("gate_up_proj", experts, rows, 2 * F, D, true, o.model.dtype);
    bench.matmul("down_proj", experts, rows, D, F, false, o.model.dtype);
  }
  for (const int64_t batch : {1, 4, 16, 64, 256}) bench.attention(c, batch, o.context, o.model.kv_dtype);
  // As in steps of `moge bench decode`, a little beyond: the last pages and units of work are not full.
  for (const int64_t batch : {1, 300, 350}) bench.attention(c, batch, o.context + 24, o.model.kv_dtype);
  bench.finish();
}

}  // namespace moge::cli
