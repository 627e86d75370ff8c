// The op harness: a case of an op is declared once and runs in five modes (ggml's test-backend-ops, split
// up).
//   test     every implementation against the reference, and bit-equal for 1, 2 and 3 threads; those of the
//            GPU also as a graph, launched twice, over a workspace full of NaN
//   grad     every backward implementation against finite differences of the reference forward
//   races    every implementation once, nothing compared: on 3 threads of the CPU what ThreadSanitizer has to
//            see, on the GPU, without `slow_races`, what racecheck has to
//   perf     median time, GB/s, GFLOP/s and percent of the machine's measured ceiling; on the GPU inside a
//            graph of runs over copies of the inputs that the L2 cannot hold
//   support  which implementation takes which case, and why others refuse
// `op_cases MODE [FILTER [IMPL]]`. To add an op: write tests/ops/NAME_cases.cpp with a `const Cases` object.
#pragma once
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/buffer.h"
#include "core/dispatch.h"
#include "core/rng.h"
#include "ops/device.h"

namespace moge::test {

/// Makes and owns the tensors of one run of a case. The same seed gives the same tensors.
class Inputs {
 public:
  explicit Inputs(uint64_t seed) : seed_(seed) {}
  /// Standard normal times `scale`; rounded to bf16, f16, fp8_e4m3 or (clamped to -127..127) i8.
  Tensor normal(Shape shape, float scale = 1, DType dtype = DType::kF32);
  Tensor uniform(Shape shape, float low, float high);
  /// Uniform integers in [low, high).
  Tensor ints(Shape shape, int32_t low, int32_t high);
  Tensor values(const std::vector<int32_t>& values);
  Tensor values(const std::vector<int64_t>& values);
  Tensor values(const std::vector<float>& values);
  /// An output: filled with a pattern (NaN) that an op has to overwrite. Zeroes for one that accumulates.
  Tensor output(Shape shape, DType dtype = DType::kF32);
  Tensor zeros(Shape shape, DType dtype = DType::kF32);
  /// Independent random numbers for anything else.
  Rng rng() { return Rng(seed_, next_stream_++); }

 private:
  Tensor make(DType dtype, Shape shape);
  uint64_t seed_;
  uint64_t next_stream_ = 0;
  std::vector<std::unique_ptr<OwnedTensor>> owned_;
};

/// One output tensor and how far from the reference it may be: each element within
///   roundings * eps(dtype of the arithmetic) * magnitude,
/// where the magnitude of element i is the larger of |ref_i| and the reference's root mean square, unless the
/// case computes its own (e.g. |a| . |b| for a dot product). Integers must be equal (roundings 0).
template <class Args>
struct Output {
  const char* name;
  Tensor Args::*tensor;
  double roundings = 0;
  double eps = 0x1p-24;  ///< unit roundoff: 2^-24 f32, 2^-8 bf16
  std::function<std::vector<double>(const Args&)> magnitude{};
  std::function<bool(std::string_view impl)> holds_for{};  ///< null: every implementation
};

template <class Args>
struct Case {
  std::string params;  ///< "T=64 D=256"
  std::function<Args(Inputs&)> make;
  std::vector<Output<Args>> outputs;
  bool perf = false;      ///< timed, and not run by test: shapes that take long to compare
  bool gpu_only = false;  ///< shapes at which the CPU's implementations take long
  /// Left out by mode "races" on a GPU: takes long under racecheck, and another case has the same kernels.
  bool slow_races = false;
  double flops = 0;  ///< for perf; 0: not counted
  double bytes = 0;  ///< for perf: what must be moved at least
};

/// A backward against finite differences of its forward. `outputs` pairs each differentiable forward output
/// with the backward's argument that receives its gradient, `inputs` each forward input with its gradient.
/// The forward runs first (reference); `bind` then fills the backward's other arguments from it. An op that
/// makes its own gradient (a loss) is both; its outputs have no argument for theirs (null): it is
/// `output_grad`.
template <class Fwd, class Bwd>
struct GradCase {
  std::string params;
  std::function<Fwd(Inputs&)> make;
  std::vector<std::pair<Tensor Fwd::*, Tensor Bwd::*>> outputs;
  std::function<Bwd(const Fwd&, Inputs&)> bind;
  std::vector<std::pair<Tensor Fwd::*, Tensor Bwd::*>> inputs;
  double output_grad = 1;
  double step = 1e-2;       ///< of the central difference, in units of each input's root mean square
  double tolerance = 1e-2;  ///< relative, of the directional derivative: truncation O(step^2) + rounding
};

/// A case with its types erased. Each function returns "" or what went wrong.
struct AnyCase {
  std::string op;
  std::string params;
  std::function<std::string(const std::string& impl)> test;  ///< null: not such a case
  std::function<std::string(const std::string& impl)> grad;
  std::function<std::string(const std::string& impl)> races;
  bool slow_races = false;
  struct Timing {
    double seconds, flops, bytes;
  };
  std::function<Timing(const std::string& impl)> perf;
  std::function<std::string(const std::string& impl)> refusal;
  std::function<std::vector<std::string>()> impls;  ///< of this machine's devices, fastest first
};
inline bool on_gpu(const std::string& impl) {
  return impl.starts_with("cuda");
}

std::vector<AnyCase>& all_cases();

/// The objects that register cases before main().
struct Cases {
  explicit Cases(void (*declare)()) { declare(); }
};

// ---- the rest is machinery ----

inline constexpr uint64_t kSeed = 1;

/// A context on the GPU and a workspace grown to what the op asks for, poisoned. Arguments are on the device.
class GpuBench {
 public:
  GpuBench() : backend_(*device()) {
    ctx_.device.kind = DeviceKind::kCuda;
    ctx_.backend = &backend_;
    ctx_.workspace = &workspace_;
  }
  template <class Args>
  void run(const OpTable<Args>& table, const Impl<Args>& impl, const Args& args) {
    reserve(impl, args);
    run_impl(ctx_, table, impl, args);
  }
  /// All runs as one graph.
  template <class Args>
  std::unique_ptr<Graph> capture(const OpTable<Args>& table, const Impl<Args>& impl,
                                 const std::vector<std::unique_ptr<Mirror<Args>>>& runs) {
    for (const auto& mirror : runs) reserve(impl, mirror->args());
    backend_.begin_capture();
    for (const auto& mirror : runs) run_impl(ctx_, table, impl, mirror->args());
    return backend_.end_capture();
  }
  Backend& backend() const { return backend_; }

 private:
  template <class Args>
  void reserve(const Impl<Args>& impl, const Args& args) {
    const int64_t bytes = impl.workspace_bytes ? impl.workspace_bytes(ctx_, args) : 0;
    if (bytes <= workspace_.bytes()) return;
    workspace_ = Workspace(bytes, &backend_);
    backend_.fill_bytes(workspace_.get(bytes, "workspace").data(), 0xff, bytes);
  }
  Backend& backend_;
  ExecContext ctx_;
  Workspace workspace_;
};

/// A context with its own pool and a workspace grown to what the op asks for.
class Bench {
 public:
  explicit Bench(int num_threads) : pool_(num_threads) {
    ctx.pool = &pool_;
    ctx.workspace = &workspace_;
  }
  /// Arguments are on the CPU; an implementation of the GPU runs on their mirror.
  template <class Args>
  void run(const OpTable<Args>& table, const Impl<Args>& impl, const Args& args) {
    if (impl.device == DeviceKind::kCuda) {
      Mirror<Args> mirror(*device(), args);
      GpuBench().run(table, impl, mirror.args());
      return mirror.memory().download();
    }
    const int64_t bytes = impl.workspace_bytes ? impl.workspace_bytes(ctx, args) : 0;
    if (bytes > workspace_.bytes()) workspace_ = Workspace(bytes);
    run_impl(ctx, table, impl, args);
  }
  ExecContext ctx;

 private:
  ThreadPool pool_;
  Workspace workspace_;
};

/// The values of any strided CPU tensor as doubles, in row-major order.
std::vector<double> to_doubles(const Tensor& t);
/// Writes one element (flat, row-major index) of an f32, bf16, fp8_e4m3 or i8 tensor, rounded.
void set_element(const Tensor& t, int64_t i, double value);
std::string compare(const char* name, const std::vector<double>& got, const std::vector<double>& ref,
                    double roundings, double eps, const std::vector<double>& magnitude);
std::string same_bits(const char* name, const Tensor& a, const Tensor& b);
double median_seconds(const std::function<void()>& run);

template <class Args>
const Impl<Args>& find_impl(const OpTable<Args>& table, const std::string& name) {
  for (const Impl<Args>& impl : table.impls)
    if (name == impl.name) return impl;
  throw Error(str(table.op, ": no implementation '", name, "'"));
}
template <class Args>
const Impl<Args>& reference(const OpTable<Args>& table) {
  return table.impls.back();
}

/// The case's arguments after the reference ran, which is kept until another case of the op asks: some
/// references take as long as all the implementations that are compared with them.
template <class Args>
const Args& reference_result(const OpTable<Args>& table, const Case<Args>& c) {
  struct Result {
    explicit Result(const Case<Args>& c) : of(&c), args(c.make(in)) {}
    const Case<Args>* of;
    Inputs in{kSeed};
    Args args;
  };
  static std::unique_ptr<Result> last;
  if (!last || last->of != &c) {
    auto result = std::make_unique<Result>(c);
    Bench(c.gpu_only ? 0 : 1).run(table, reference(table), result->args);
    last = std::move(result);
  }
  return last->args;
}

template <class Args>
AnyCase erase(OpTable<Args>& table, const std::string& params) {
  return {.op = table.op,
          .params = params,
          .test = {},
          .grad = {},
          .races = {},
          .perf = {},
          .refusal = {},
          .impls = [&table] {
            std::vector<std::string> names;
            for (const Impl<Args>& impl : table.impls) names.emplace_back(impl.name);
            return names;
          }};
}

/// The case's outputs in `args`, which `impl` computed, against the reference's, or "".
template <class Args>
std::string compare_outputs(const Case<Args>& c, const char* impl, const Args& args, const Args& ref) {
  for (const Output<Args>& o : c.outputs) {
    if (!(args.*o.tensor) || (o.holds_for && !o.holds_for(impl))) continue;
    std::string why = compare(o.name, to_doubles(args.*o.tensor), to_doubles(ref.*o.tensor), o.roundings,
                              o.eps, o.magnitude ? o.magnitude(args) : std::vector<double>{});
    if (!why.empty()) return why;
  }
  return "";
}
template <class Args>
std::string same_outputs(const Case<Args>& c, const Args& args, const Args& other) {
  for (const Output<Args>& o : c.outputs) {
    std::string why = args.*o.tensor ? same_bits(o.name, args.*o.tensor, other.*o.tensor) : "";
    if (!why.empty()) return why;
  }
  return "";
}

template <class Args>
std::string test_on_cpu(const OpTable<Args>& table, const Impl<Args>& impl, const Case<Args>& c,
                        const Args& ref) {
  Inputs first_in(kSeed);
  Args first = ref;
  if (&impl != &reference(table)) {
    first = c.make(first_in);
    Bench(1).run(table, impl, first);
    const std::string why = compare_outputs(c, impl.name, first, ref);
    if (!why.empty()) return why;
  }
  for (const int threads : {2, 3}) {
    Inputs in(kSeed);
    const Args args = c.make(in);
    Bench(threads).run(table, impl, args);
    const std::string why = same_outputs(c, args, first);
    if (!why.empty()) return str(threads, " threads: ", why);
  }
  return "";
}

/// Once as it is called, then as a graph that is launched twice: it must not wait, allocate or remember.
template <class Args>
std::string test_on_gpu(const OpTable<Args>& table, const Impl<Args>& impl, const Case<Args>& c,
                        const Args& ref) {
  Inputs first_in(kSeed);
  const Args first = c.make(first_in);
  Bench(1).run(table, impl, first);
  std::string why = compare_outputs(c, impl.name, first, ref);
  if (!why.empty() || sync_every_op()) return why;
  GpuBench bench;
  Inputs in(kSeed);
  const Args args = c.make(in);
  std::vector<std::unique_ptr<Mirror<Args>>> runs;
  runs.push_back(std::make_unique<Mirror<Args>>(bench.backend(), args));
  const auto graph = bench.capture(table, impl, runs);
  for (const char* launch : {"as a graph: ", "as a graph, again: "}) {
    runs[0]->memory().restore();
    graph->launch();
    runs[0]->memory().download();
    why = same_outputs(c, args, first);
    if (!why.empty()) return launch + why;
  }
  return "";
}

/// A graph of runs over enough copies of the inputs that the L2 forgets them in between.
template <class Args>
double gpu_seconds(const OpTable<Args>& table, const Impl<Args>& impl, const Args& args) {
  constexpr int64_t kMaxCopies = 64;
  GpuBench bench;
  std::vector<std::unique_ptr<Mirror<Args>>> copies;
  int64_t bytes = 0;
  while (copies.empty() || (bytes < 3 * bench.backend().info().l2_bytes && copies.size() < kMaxCopies)) {
    copies.push_back(std::make_unique<Mirror<Args>>(bench.backend(), args));
    bytes += copies.back()->memory().bytes();
  }
  const auto restore = [&] {
    for (const auto& copy : copies) copy->memory().restore();
  };
  const auto graph = bench.capture(table, impl, copies);
  return median_graph_seconds(bench.backend(), restore, *graph, static_cast<int>(copies.size()));
}

template <class Args>
void add(OpTable<Args>& table, Case<Args> c) {
  AnyCase any = erase(table, c.params);
  any.slow_races = c.slow_races;
  auto shared = std::make_shared<Case<Args>>(std::move(c));
  if (!shared->perf) {
    any.test = [&table, shared](const std::string& name) {
      const Impl<Args>& impl = find_impl(table, name);
      const Args& ref = reference_result(table, *shared);
      return impl.device == DeviceKind::kCpu ? test_on_cpu(table, impl, *shared, ref)
                                             : test_on_gpu(table, impl, *shared, ref);
    };
    any.races = [&table, shared](const std::string& name) -> std::string {
      Inputs in(kSeed);
      Bench(3).run(table, find_impl(table, name), shared->make(in));
      return "";
    };
  } else {
    any.perf = [&table, shared](const std::string& name) {
      const Impl<Args>& impl = find_impl(table, name);
      Inputs in(kSeed);
      const Args args = shared->make(in);
      Bench bench(0);
      const double seconds = impl.device == DeviceKind::kCpu
                                 ? median_seconds([&] { bench.run(table, impl, args); })
                                 : gpu_seconds(table, impl, args);
      return AnyCase::Timing{seconds, shared->flops, shared->bytes};
    };
  }
  any.refusal = [&table, shared](const std::string& name) -> Refusal {
    if (shared->gpu_only && !on_gpu(name)) return "a case for the GPU alone";
    Inputs in(kSeed);
    return find_impl(table, name).supports(shared->make(in));
  };
  all_cases().push_back(std::move(any));
}

template <class Fwd, class Bwd>
void add_grad(OpTable<Fwd>& fwd, OpTable<Bwd>& bwd, GradCase<Fwd, Bwd> c) {
  AnyCase any = erase(bwd, c.params);
  auto shared = std::make_shared<GradCase<Fwd, Bwd>>(std::move(c));
  any.grad = [&fwd, &bwd, shared](const std::string& name) -> std::string {
    Bench bench(2);
    Inputs in(kSeed);
    const Fwd f = shared->make(in);
    // Before the forward, which may work in place.
    std::vector<std::vector<double>> before;
    for (const auto& [x, grad] : shared->inputs)
      before.push_back(f.*x ? to_doubles(f.*x) : std::vector<double>());
    bench.run(fwd, reference(fwd), f);
    // L = sum over outputs of <y, dy> with random dy.
    std::vector<std::vector<double>> dy;
    Bwd b = shared->bind(f, in);
    for (const auto& [y, grad] : shared->outputs) {
      if (!(f.*y)) continue;
      if (grad) b.*grad = in.normal((f.*y).shape);
      dy.push_back(grad ? to_doubles(b.*grad)
                        : std::vector<double>(static_cast<size_t>((f.*y).numel()), shared->output_grad));
    }
    // Differences first: the backward may write over what the forward read (in-place gradients).
    const auto loss = [&] {
      bench.run(fwd, reference(fwd), f);
      double sum = 0;
      size_t o = 0;
      for (const auto& [y, grad] : shared->outputs) {
        if (!(f.*y)) continue;
        const std::vector<double> v = to_doubles(f.*y);
        for (size_t i = 0; i < v.size(); ++i) sum += v[i] * dy[o][i];
        ++o;
      }
      return sum;
    };
    struct Probe {
      Tensor grad;
      std::vector<double> direction;
      double numeric = 0;
    };
    std::vector<Probe> probes;
    for (size_t input = 0; input < before.size(); ++input) {
      const auto& [x, grad] = shared->inputs[input];
      if (!(f.*x)) continue;
      const std::vector<double>& x0 = before[input];
      double rms = 0;
      for (const double v : x0) rms += v * v;
      rms = std::sqrt(rms / static_cast<double>(x0.size()));
      for (int direction = 0; direction < 3; ++direction) {
        Probe p;
        p.grad = b.*grad;
        const Rng rng = in.rng();
        const double h = shared->step * rms;
        for (size_t i = 0; i < x0.size(); ++i) p.direction.push_back(rng.normal(i));
        double side[2];
        for (const int s : {0, 1}) {
          for (size_t i = 0; i < x0.size(); ++i)
            set_element(f.*x, static_cast<int64_t>(i), x0[i] + (s == 0 ? h : -h) * p.direction[i]);
          // What was stored is rounded to fp32: 2^-24 of x against a step of 1e-2 of it, 6e-6 relative.
          side[s] = loss();
        }
        for (size_t i = 0; i < x0.size(); ++i) set_element(f.*x, static_cast<int64_t>(i), x0[i]);
        p.numeric = (side[0] - side[1]) / (2 * h);
        probes.push_back(std::move(p));
      }
    }
    loss();  // restores what the backward reads
    bench.run(bwd, find_impl(bwd, name), b);
    for (const Probe& p : probes) {
      const std::vector<double> g = to_doubles(p.grad);
      double analytic = 0, norm = 0;
      for (size_t i = 0; i < g.size(); ++i) {
        analytic += g[i] * p.direction[i];
        norm += g[i] * g[i];
      }
      const double bound = shared->tolerance * std::sqrt(norm);
      if (!(std::abs(analytic - p.numeric) <= bound))
        return str("directional derivative ", analytic, ", finite differences ", p.numeric, ", bound ",
                   bound);
    }
    return "";
  };
  any.refusal = [&bwd, shared](const std::string& name) {
    Inputs in(kSeed);
    return find_impl(bwd, name).supports(shared->bind(shared->make(in), in));
  };
  all_cases().push_back(std::move(any));
}

}  // namespace moge::test
