// Device time by op, from events around every op of a pass, launched op by op or as a graph.
#pragma once
#include <string>
#include <vector>

#include "core/exec_context.h"

namespace moge::engine {

class OpProfile : public OpObserver {
 public:
  explicit OpProfile(Backend& backend) : backend_(backend) {}
  void before(const char* op) override;
  void after(const char* op) override;

  struct Line {
    std::string op;
    double seconds = 0;                ///< of all calls
    std::vector<double> call_seconds;  ///< in their order
  };
  /// By op, of such seconds, one for each of num_calls(). Most time first.
  std::vector<Line> lines(const std::vector<double>& call_seconds) const;
  size_t num_calls() const { return spans_.size(); }
  /// Seconds of each call, in their order. Waits for the device. The events end what the kernels' launches
  /// overlap, so that the sum is more than the same pass takes without them.
  std::vector<double> call_seconds();
  /// Seconds from the first call's begin to the last one's end.
  double pass_seconds();
  /// Median seconds between one op's end and the next one's begin: what an event costs.
  double event_seconds();

 private:
  struct Span {
    const char* op;
    std::unique_ptr<Event> begin, end;
  };
  Backend& backend_;
  std::vector<Span> spans_;
};

}  // namespace moge::engine
