// The matmul family beside oneDNN, in one process and in paired rounds, so that both see the same machine.
// `matmul_peers [FILTER] [SECONDS_PER_CASE]` prints the median GFLOP/s of each over the rounds, and of the
// rounds' ratios the median and the quartiles, of the products whose name, with a '$' at its end, has FILTER
// in it.
//
// bf16: both get activations in bf16 and, in the columns behind, in fp32, which ours rounds while it packs
// and oneDNN by its own reorder in the timed region. Its weights are in the layout it prefers (`any`) where
// ours are packed, and plain row-major where ours are plain.
//
// i8: ops::quant_matmul, with packed weights and with rows of them, beside oneDNN's `any` with signed
// activations and, in the columns behind, with unsigned ones, which its instruction takes as they are.
// Scales: ours a row's and a channel's, oneDNN's a channel's.
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/buffer.h"
#include "core/rng.h"
#include "ops/machine.h"
#include "ops/matmul.h"
#include "ops/quant_matmul.h"

namespace {

using namespace moge;
using Clock = std::chrono::steady_clock;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;

constexpr int kThreads = 2;
constexpr int64_t kColdBytes = int64_t{256} << 20;  // of rotated weights: eight times the L3

struct Product {
  enum Kind { kNT, kNN, kTN } kind;
  int64_t R, N, K;  // R rows per group
  DType dtype;
  int64_t G = 1;
  bool packed = false;
  bool cold = false;
  std::string name() const {
    static const char* kinds[] = {"nt", "nn", "tn"};
    return str(kinds[kind], " ", name_of(dtype), G > 1 ? str(" ", G, "x") : " ", "M=", R, " N=", N, " K=", K,
               packed ? " packed" : "", cold ? " cold" : "");
  }
  double flops() const { return 2.0 * static_cast<double>(G * R * N * K); }
};

OwnedTensor random(DType dtype, Shape shape, uint64_t stream) {
  OwnedTensor t(dtype, shape);
  const Rng rng(7, stream);
  const int64_t n = t->numel();
  for (int64_t i = 0; i < n; ++i) {
    const float v = rng.uniform(static_cast<uint64_t>(i % 4099)) - 0.5F;
    if (dtype == DType::kI8)
      t->ptr<int8_t>()[i] = static_cast<int8_t>(254 * v);
    else if (dtype == DType::kBF16)
      t->ptr<BF16>()[i] = to_bf16(v);
    else
      t->ptr<float>()[i] = v;
  }
  return t;
}

/// Binds thread i of the pool to CPU i, as OMP_PROC_BIND does for oneDNN's.
void bind(ThreadPool& pool) {
  std::atomic<int> arrived{0};
  pool.run(kThreads, [&](int64_t, int thread) {
    for (++arrived; arrived < kThreads;) std::this_thread::yield();  // so that each thread takes one task
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(thread, &set);
    sched_setaffinity(0, sizeof set, &set);
  });
}

/// Calls that are timed one by one; `copy` numbers the weight copy to use.
using Call = std::function<void(int copy)>;

struct Ours {
  Ours(const Product& p, int copies, DType operands) : p(p), pool(kThreads) {
    bind(pool);
    ctx.pool = &pool;
    const int64_t R = p.G * p.R;
    const Shape weight_shape = p.G > 1 ? Shape{p.G, p.N, p.K} : Shape{p.N, p.K};
    const bool quant = p.dtype == DType::kI8;
    a = random(operands, {R, p.kind == Product::kNT ? p.K : p.N}, 1);
    if (quant) {
      a_scale = random(DType::kF32, {R}, 4);
      w_scale = random(DType::kF32, {p.N}, 5);
    }
    if (p.G > 1) {
      offsets = OwnedTensor(DType::kI32, {p.G + 1});
      for (int64_t g = 0; g <= p.G; ++g) offsets->ptr<int32_t>()[g] = static_cast<int32_t>(g * p.R);
    }
    if (p.kind == Product::kTN) {
      b = random(operands, {R, p.K}, 2);
      c = OwnedTensor(DType::kF32, weight_shape);
    } else {
      c = OwnedTensor(DType::kF32, {R, p.kind == Product::kNT ? p.N : p.K});
      for (int i = 0; i < copies; ++i) {
        w.push_back(random(p.dtype, weight_shape, 3));
        views.push_back(!p.packed ? w.back().get()
                        : quant   ? ops::pack_quant_weight(ctx, w.back())
                                  : ops::pack_weight(ctx, w.back()));
      }
    }
    Workspace planner;
    ctx.workspace = &planner;
    ctx.planning = true;
    call(0);
    workspace = Workspace(planner.planned_bytes());
    ctx.workspace = &workspace;
    ctx.planning = false;
  }
  void call(int copy) {
    const Tensor off = p.G > 1 ? offsets.get() : Tensor{};
    if (p.dtype == DType::kI8)
      return ops::quant_matmul(ctx,
                               {.c = c, .a = a, .a_scale = a_scale, .w = views[copy], .w_scale = w_scale});
    switch (p.kind) {
      case Product::kNT:
        return ops::matmul_nt(ctx, {c, a, views[copy], {}, {}, off, {}});
      case Product::kNN:
        return ops::matmul_nn(ctx, {c, a, views[copy], {}, off, {}});
      case Product::kTN:
        return ops::matmul_tn(ctx, {c, a, b, off, {}, {}, p.dtype});
    }
  }
  Product p;
  ThreadPool pool;
  ExecContext ctx;
  Workspace workspace;
  OwnedTensor a, b, c, offsets, a_scale, w_scale;
  std::vector<OwnedTensor> w;
  std::vector<Tensor> views;
};

/// The same product as a (batched, where there are groups) oneDNN matmul.
struct OneDnn {
  /// `convert`: bf16 activations come as fp32; those of i8 are unsigned.
  OneDnn(const Product& p, int copies, bool convert) : engine(dnnl::engine::kind::cpu, 0), stream(engine) {
    using dnnl::memory;
    using Type = memory::data_type;
    const bool quant = p.dtype == DType::kI8;
    const Type f32 = Type::f32;
    const Type type = quant ? Type::s8 : p.dtype == DType::kBF16 ? Type::bf16 : f32;
    const auto dims = [&](int64_t rows, int64_t cols) {
      return p.G > 1 ? Dims{p.G, rows, cols} : Dims{rows, cols};
    };
    const Tag plain = p.G > 1 ? Tag::abc : Tag::ab, transposed = p.G > 1 ? Tag::acb : Tag::ba;
    memory::desc a, b, c;
    switch (p.kind) {
      case Product::kNT:
        a = {dims(p.R, p.K), quant && convert ? Type::u8 : type, plain};
        b = {dims(p.K, p.N), type, p.packed || quant ? Tag::any : transposed};
        c = {dims(p.R, p.N), f32, plain};
        break;
      case Product::kNN:
        a = {dims(p.R, p.N), type, plain};
        b = {dims(p.N, p.K), type, plain};
        c = {dims(p.R, p.K), f32, plain};
        break;
      case Product::kTN:
        a = {dims(p.N, p.R), type, transposed};
        b = {dims(p.R, p.K), type, plain};
        c = {dims(p.N, p.K), f32, plain};
        break;
    }
    dnnl::primitive_attr attr;
    if (p.kind == Product::kTN) {
      dnnl::post_ops sum;
      sum.append_sum(1.0F);
      attr.set_post_ops(sum);
    }
    if (quant) attr.set_output_scales(1 << 1, std::vector<float>(static_cast<size_t>(p.N), 0.5F));
    const dnnl::matmul::primitive_desc desc({a, b, c}, attr, engine);
    matmul = dnnl::matmul(desc);
    src = memory(desc.src_desc(), engine);
    dst = memory(desc.dst_desc(), engine);
    fill(src, desc.src_desc().data_type());
    std::memset(dst.get_data_handle(), 0, desc.dst_desc().get_size());
    for (int i = 0; i < copies; ++i) {
      weights.emplace_back(desc.weights_desc(), engine);
      fill(weights.back(), type);
    }
    if (convert && p.dtype == DType::kBF16) {
      const auto as_f32 = [&](const memory::desc& d, Tag tag) {
        return memory({d.dims(), f32, tag}, engine);
      };
      sources.push_back(as_f32(desc.src_desc(), p.kind == Product::kTN ? transposed : plain));
      reorders.emplace_back(sources.back(), src);
      if (p.kind == Product::kTN) {
        sources.push_back(as_f32(desc.weights_desc(), plain));
        reorders.emplace_back(sources.back(), weights[0]);
      }
      for (const memory& m : sources) std::memset(m.get_data_handle(), 0, m.get_desc().get_size());
    }
  }
  static void fill(const dnnl::memory& m, dnnl::memory::data_type type) {
    const Rng rng(7, 1);
    using Type = dnnl::memory::data_type;
    const int64_t element = type == Type::f32 ? 4 : type == Type::bf16 ? 2 : 1;
    const auto n = static_cast<int64_t>(m.get_desc().get_size()) / element;
    for (int64_t i = 0; i < n; ++i) {
      const float v = rng.uniform(static_cast<uint64_t>(i % 4099)) - 0.5F;
      if (element == 1)
        static_cast<int8_t*>(m.get_data_handle())[i] = static_cast<int8_t>(254 * v);
      else if (type == Type::f32)
        static_cast<float*>(m.get_data_handle())[i] = v;
      else
        static_cast<BF16*>(m.get_data_handle())[i] = to_bf16(v);
    }
  }
  void call(int copy) {
    for (size_t i = 0; i < reorders.size(); ++i)
      reorders[i].execute(stream, sources[i], i == 0 ? src : weights[0]);
    matmul.execute(stream, {{DNNL_ARG_SRC, src}, {DNNL_ARG_WEIGHTS, weights[copy]}, {DNNL_ARG_DST, dst}});
    stream.wait();
  }
  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::matmul matmul;
  dnnl::memory src, dst;
  std::vector<dnnl::memory> weights, sources;
  std::vector<dnnl::reorder> reorders;
};

/// Sorts.
double quantile(std::vector<double>& values, double share) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
}

constexpr size_t kLeastRounds = 7;

/// How often this process was taken off a CPU so far.
int64_t preemptions() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_nivcsw;
}

/// A contender's turn: seconds of its median call within some milliseconds. Nothing when other work had its
/// CPUs.
std::optional<double> turn(const Call& call, int copies) {
  using std::chrono::milliseconds;
  // The other library's threads may still spin; ours may sleep.
  for (const auto begin = Clock::now(); Clock::now() - begin < milliseconds(5);) call(0);
  std::vector<double> times;
  const int64_t before = preemptions();
  const auto begin = Clock::now();
  for (int n = 0; n < 3 || Clock::now() - begin < milliseconds(15); ++n) {
    const auto t0 = Clock::now();
    call(n % copies);
    times.push_back(std::chrono::duration<double>(Clock::now() - t0).count());
  }
  // The kernel's own work needs a CPU now and then.
  if (preemptions() - before > 2 + (Clock::now() - begin) / milliseconds(10)) return std::nullopt;
  return quantile(times, 0.5);
}

/// Seconds of each contender, [contender][round]; rounds in which one was disturbed are left out, and when
/// that is nearly all of them, there may be none.
std::vector<std::vector<double>> race(const std::vector<Call>& calls, int copies, double seconds) {
  std::vector<std::vector<double>> rounds(calls.size());
  const auto start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  for (size_t round = 0; elapsed() < seconds || (rounds[0].size() < kLeastRounds && elapsed() < 8 * seconds);
       ++round) {
    std::vector<std::optional<double>> turns(calls.size());
    for (size_t i = 0; i < calls.size(); ++i) {  // nobody always comes first
      const size_t who = (i + round) % calls.size();
      turns[who] = turn(calls[who], copies);
    }
    if (std::ranges::all_of(turns, [](const auto& t) { return t.has_value(); }))
      for (size_t i = 0; i < calls.size(); ++i) rounds[i].push_back(*turns[i]);
  }
  return rounds;
}

/// The measured ceilings of kThreads threads.
struct Roof {
  Roof() {
    ThreadPool pool(kThreads);
    bind(pool);
    ExecContext ctx;
    ctx.pool = &pool;
    const ops::MachineCeilings m = ops::measure_machine(ctx);
    for (const ops::ComputeCeiling& c : m.compute) {
      f32_flops = std::max(f32_flops, c.f32_flops);
      bf16_flops = std::max(bf16_flops, c.bf16_flops);
      i8_ops = std::max(i8_ops, c.i8_ops);
    }
    for (const ops::MemoryCeiling& c : m.memory) dram_bytes = std::max(dram_bytes, c.dram_read_bytes);
    std::printf("ceilings, %d threads: %.0f f32, %.0f bf16 and %.0f i8 GFLOP/s, DRAM read %.0f GB/s\n",
                kThreads, f32_flops * 1e-9, bf16_flops * 1e-9, i8_ops * 1e-9, dram_bytes * 1e-9);
  }
  /// The time below which no one gets: arithmetic, or (cold) reading the weight.
  double seconds(const Product& p, int64_t weight_bytes) const {
    const double rate = p.dtype == DType::kI8 ? i8_ops : p.dtype == DType::kBF16 ? bf16_flops : f32_flops;
    const double compute = p.flops() / (rate > 0 ? rate : f32_flops);
    return p.cold ? std::max(compute, static_cast<double>(weight_bytes) / dram_bytes) : compute;
  }
  double f32_flops = 0, bf16_flops = 0, i8_ops = 0, dram_bytes = 0;
};

std::vector<Product> products() {
  std::vector<Product> all;
  for (const auto& [N, K] : {std::pair<int64_t, int64_t>{1344, 5120}, {4096, 1024}})
    for (const int64_t M : {1, 8, 64, 256, 2048})
      for (const bool cold : {false, true})
        for (const bool packed : {true, false})
          if (!cold || M <= 8) all.push_back({Product::kNT, M, N, K, DType::kI8, 1, packed, cold});
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const auto& [N, K] : {std::pair<int64_t, int64_t>{1344, 5120}, {4096, 1024}})
      for (const int64_t M : {1, 8, 64, 256, 2048})
        for (const bool cold : {false, true}) all.push_back({Product::kNT, M, N, K, dtype, 1, true, cold});
    for (const auto kind : {Product::kNT, Product::kNN, Product::kTN}) {
      all.push_back({kind, 4096, 512, 256, dtype});
      all.push_back({kind, 4096, 4096, 256, dtype});
      all.push_back({kind, 1024, 256, 256, dtype, 18});
      all.push_back({kind, 1024, 256, 128, dtype, 18});
      for (const int64_t M : {8, 64, 256, 2048}) all.push_back({kind, M, 512, 512, dtype, 8});
      for (const int64_t M : {8, 64, 256, 2048}) all.push_back({kind, M, 1344, 5120, dtype});
      for (const int64_t M : {8, 64, 256, 2048}) all.push_back({kind, M, 4096, 1024, dtype});
    }
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string filter = argc > 1 ? argv[1] : "";
  const double seconds = argc > 2 ? std::atof(argv[2]) : 0.4;
  if (!std::getenv("OMP_PROC_BIND")) {  // OpenMP reads these before main()
    setenv("OMP_NUM_THREADS", std::to_string(kThreads).c_str(), 1);
    setenv("OMP_PROC_BIND", "true", 1);
    execv("/proc/self/exe", argv);
  }
  const Roof roof;
  std::printf("%-40s %6s %9s %6s %9s %7s %12s %9s %9s %7s %12s\n", "GFLOP/s, 2 threads, medians", "rounds",
              "ours", "%roof", "oneDNN", "ratio", "quartiles", "of fp32", "oneDNN,u8", "ratio", "quartiles");
  for (const Product& p : products()) {
    if ((p.name() + '$').find(filter) == std::string::npos) continue;
    const int64_t weight_bytes = p.G * p.N * p.K * size_of(p.dtype);
    const int copies = p.cold ? static_cast<int>(kColdBytes / weight_bytes) + 1 : 1;
    const bool quant = p.dtype == DType::kI8, round = p.dtype == DType::kBF16 && !p.cold;
    Ours ours(p, copies, p.dtype);
    std::optional<Ours> rounding;
    if (round) rounding.emplace(p, 1, DType::kF32);
    OneDnn peer(p, copies, false), converting(p, quant ? copies : 1, true);
    std::vector<Call> calls{[&](int i) { ours.call(i); }, [&](int i) { peer.call(i); }};
    if (round) calls.emplace_back([&](int) { rounding->call(0); });
    if (quant || round) calls.emplace_back([&](int i) { converting.call(quant ? i : 0); });
    std::vector<std::vector<double>> rounds = race(calls, copies, seconds);
    if (rounds[0].empty()) {
      std::printf("%-40s other work on this machine, no round without\n", p.name().c_str());
      continue;
    }
    const auto rate = [&](size_t i) {
      std::vector<double> times = rounds[i];
      return p.flops() / quantile(times, 0.5) * 1e-9;
    };
    const auto print_peer = [&](size_t peer, size_t of) {
      std::vector<double> ratios;
      for (size_t r = 0; r < rounds[peer].size(); ++r) ratios.push_back(rounds[peer][r] / rounds[of][r]);
      std::printf(" %9.1f %7.2f  %.2f to %.2f", rate(peer), quantile(ratios, 0.5), quantile(ratios, 0.25),
                  quantile(ratios, 0.75));
    };
    std::printf("%-40s %6zu %9.1f %5.0f%%", p.name().c_str(), rounds[0].size(), rate(0),
                100 * roof.seconds(p, weight_bytes) * rate(0) * 1e9 / p.flops());
    print_peer(1, 0);
    if (quant || round) {
      std::printf(" %9.1f", rate(calls.size() - 2));
      print_peer(calls.size() - 1, round ? 2 : 0);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}
