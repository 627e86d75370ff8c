// Times operators as a step runs them: between their neighbours, at the clocks of whole layers.
#pragma once
#include <functional>
#include <vector>

#include "core/exec_context.h"

namespace moge::cli {

/// Once before the layers, in each of them, or once behind them.
enum class StepPart { kBegin, kLayer, kEnd };

struct StepOp {
  using Call = std::function<void(ExecContext&, size_t)>;
  /// The i-th call. It runs with planning first.
  Call call;
  /// Optional: the same call, beginning under the end of the op before it (beside_previous of
  /// ops/quant_matmul.h). The layers run this one.
  Call beside = {};
  StepPart part = StepPart::kLayer;
  size_t calls = 8;   ///< of a chain, at most
  bool timed = true;  ///< false: only there because the step has it
};

struct StepOpSeconds {
  double chain = 0;   ///< one call in a chain of its own
  double beside = 0;  ///< with StepOp::beside: what it adds to a chain of the op before it
  double span = 0;    ///< between events around it in the step, as engine::OpProfile times it
};

class StepTimer {
 public:
  explicit StepTimer(Backend& backend) : backend_(backend) {}

  /// `ops` in their order; those that are not timed get zeros. Each is timed in a chain of its own right
  /// behind layers of all of them, so that clocks are those of the layers and not of one kernel; one after
  /// the other, and that kRounds times, because at the limit of its power a card's clocks rise and fall. What
  /// a layer takes more than its ops in such chains (instructions are cold, grids differ) is spread evenly
  /// over `chain` and `beside`; where not all are timed, it is what the last layer took whose were.
  std::vector<StepOpSeconds> time(const std::vector<StepOp>& ops);

 private:
  /// Several calls as a graph.
  struct Chain {
    std::unique_ptr<Graph> graph;
    size_t calls;
  };
  /// As many as take kTimedSeconds, at most `most`.
  Chain chain_of(const std::function<void(size_t)>& call, size_t most);
  /// Seconds of a call right behind `layers`.
  double seconds(const Chain& chain, Graph& layers);
  /// Runs `layers` for so many seconds.
  void heat(Graph& layers, double seconds);
  std::unique_ptr<Graph> record(const std::function<void()>& work);

  Backend& backend_;
  double excess_ = 0;
};

}  // namespace moge::cli
