#include "cli/step_timer.h"

#include <algorithm>

#include "cli/graph_timer.h"
#include "cli/quantile.h"
#include "engine/op_profile.h"

namespace moge::cli {

namespace {

constexpr size_t kLayers = 4;
constexpr int kRounds = 5;
constexpr double kHotSeconds = 10e-3, kReheatSeconds = 1.5e-3, kTimedSeconds = 1e-3;
constexpr double kMostExcess = 1e-6;    ///< of long kernels it is only the noise of clocks
constexpr double kLeastSeconds = 1e-7;  ///< of a difference between two chains

void run(const StepOp& op, ExecContext& ctx, size_t i) {
  (op.beside ? op.beside : op.call)(ctx, i);
}

/// A recorded step with events around its operators.
class ProfiledStep {
 public:
  ProfiledStep(Backend& backend, ExecContext ctx, const std::vector<StepOp>& ops)
      : backend_(backend), profile_(backend) {
    ctx.observer = &profile_;
    const auto part = [&](StepPart which, size_t i) {
      for (size_t k = 0; k < ops.size(); ++k) {
        if (ops[k].part != which) continue;
        run(ops[k], ctx, i);
        calls_.push_back({k, profile_.num_calls()});
      }
    };
    backend.begin_capture();
    part(StepPart::kBegin, 0);
    for (size_t i = 0; i < kLayers; ++i) part(StepPart::kLayer, i);
    part(StepPart::kEnd, 0);
    graph_ = backend.end_capture();
  }
  /// Runs it and adds each call's seconds to those of its operator.
  void add_to(std::vector<std::vector<double>>& spans) {
    launch_seconds(backend_, *graph_);
    const std::vector<double> seconds = profile_.call_seconds();
    size_t begin = 0;
    for (const Call& call : calls_) {
      double sum = 0;
      for (; begin < call.end; ++begin) sum += seconds[begin];
      spans[call.op].push_back(sum);
    }
  }

 private:
  struct Call {
    size_t op, end;  // of the profile's calls: an operator may be several
  };
  Backend& backend_;
  engine::OpProfile profile_;
  std::vector<Call> calls_;
  std::unique_ptr<Graph> graph_;
};

}  // namespace

std::unique_ptr<Graph> StepTimer::record(const std::function<void()>& work) {
  backend_.begin_capture();
  work();
  return backend_.end_capture();
}

void StepTimer::heat(Graph& layers, double seconds) {
  for (double ran = 0; ran < seconds;) ran += launch_seconds(backend_, layers);
}

StepTimer::Chain StepTimer::chain_of(const std::function<void(size_t)>& call, size_t most) {
  const double one = launch_seconds(backend_, *record([&] { call(0); }));
  const auto calls = static_cast<size_t>(std::clamp(kTimedSeconds / one, 1.0, static_cast<double>(most)));
  return {record([&] {
            for (size_t i = 0; i < calls; ++i) call(i);
          }),
          calls};
}

double StepTimer::seconds(const Chain& chain, Graph& layers) {
  heat(layers, kReheatSeconds);
  return launch_seconds(backend_, *chain.graph) / static_cast<double>(chain.calls);
}

std::vector<StepOpSeconds> StepTimer::time(const std::vector<StepOp>& ops) {
  int64_t bytes = 0;
  for (const StepOp& op : ops) {
    bytes = std::max(bytes, planned_bytes(backend_, op.call));
    if (op.beside) bytes = std::max(bytes, planned_bytes(backend_, op.beside));
  }
  Workspace workspace(bytes, &backend_);
  ExecContext ctx{.device = {DeviceKind::kCuda, 0}, .backend = &backend_, .workspace = &workspace};
  for (const StepOp& op : ops) op.call(ctx, 0);  // what is loaded at first use
  Chain layers{record([&] {
                 for (size_t i = 0; i < kLayers; ++i)
                   for (const StepOp& op : ops)
                     if (op.part == StepPart::kLayer) run(op, ctx, i);
               }),
               kLayers};
  heat(*layers.graph, kHotSeconds);
  struct Timed {
    size_t op;
    Chain chain, pair;  // pair: of the op before it and this one beside it
    std::vector<double> alone, beside;
  };
  std::vector<Timed> timed;
  for (size_t k = 0; k < ops.size(); ++k) {
    const StepOp& op = ops[k];
    if (!op.timed) continue;
    timed.push_back({k, chain_of([&](size_t i) { op.call(ctx, i); }, op.calls), {}, {}, {}});
    if (op.beside)
      timed.back().pair = chain_of(
          [&](size_t i) {
            ops[k - 1].call(ctx, i);
            op.beside(ctx, i);
          },
          op.calls);
  }
  ProfiledStep step(backend_, ctx, ops);

  std::vector<double> together;
  std::vector<std::vector<double>> spans(ops.size());
  for (int r = 0; r < kRounds; ++r) {
    double before = 0;
    for (Timed& t : timed) {
      t.alone.push_back(seconds(t.chain, *layers.graph));
      if (t.pair.graph) t.beside.push_back(seconds(t.pair, *layers.graph) - before);
      before = t.alone.back();
    }
    together.push_back(seconds(layers, *layers.graph));
    heat(*layers.graph, kReheatSeconds);
    step.add_to(spans);
  }

  std::vector<StepOpSeconds> times(ops.size());
  double alone = 0;  // of a layer
  size_t layer_ops = 0;
  for (const Timed& t : timed) {
    StepOpSeconds& seconds = times[t.op];
    seconds = {.chain = median(t.alone), .span = median(spans[t.op])};
    if (!t.beside.empty()) seconds.beside = std::max(kLeastSeconds, median(t.beside));
    if (ops[t.op].part != StepPart::kLayer) continue;
    alone += t.beside.empty() ? seconds.chain : seconds.beside;
    ++layer_ops;
  }
  if (timed.size() == ops.size())
    excess_ = std::clamp((median(together) - alone) / static_cast<double>(layer_ops), 0.0, kMostExcess);
  for (const Timed& t : timed) {
    times[t.op].chain += excess_;
    if (!t.beside.empty()) times[t.op].beside += excess_;
  }
  return times;
}

}  // namespace moge::cli
