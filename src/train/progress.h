// One line on stderr that says how a long job goes: rewritten in place on a terminal, every few seconds
// elsewhere.
#pragma once
#include <chrono>
#include <string>

namespace moge::train {

class ProgressLine {
 public:
  ProgressLine();
  /// Shows the line if it is time; `force` always does.
  void show(const std::string& line, bool force = false);
  /// Ends a rewritten line, so that what follows starts on its own.
  void end();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  bool open_ = false;
  Clock::time_point last_{};
};

/// "1h02m", "3m07s", "12s"
std::string duration(double seconds);

}  // namespace moge::train
