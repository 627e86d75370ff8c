// Device time by op, from events around every op of some passes.
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
    int64_t calls = 0;
    double seconds = 0;
  };
  /// Waits for the device. Most time first. The events end what the kernels' launches overlap, so that the
  /// sum is more than the same passes take in a graph.
  std::vector<Line> lines();

 private:
  struct Span {
    const char* op;
    std::unique_ptr<Event> begin, end;
  };
  Backend& backend_;
  std::vector<Span> spans_;
};

}  // namespace moge::engine
