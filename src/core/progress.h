// One line on stderr that says how a long job goes: rewritten in place on a terminal, every few seconds
// elsewhere (a file, a pipe, a terminal that cannot move its cursor: TERM=dumb).
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace moge {

class ProgressLine {
 public:
  /// Nothing is shown in the first `quiet` milliseconds: what takes no longer needs no progress.
  explicit ProgressLine(std::chrono::milliseconds quiet = {});
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { end(); }
  /// Shows the line if it is time; with `force` whenever anything is shown. MOGE_LOG decides, as over
  /// log_info.
  void show(const std::string& line, bool force = false);
  /// Ends a rewritten line, so that what follows starts on its own.
  void end();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  int rows_ = 0;  ///< of the terminal, that the line to rewrite takes; 0: there is none
  Clock::time_point first_, last_{};
};

/// "[#####---------------]  25%" of a job of which `done` of `total` is done.
std::string progress_bar(int64_t done, int64_t total);

/// "1h02m", "3m07s", "12s"
std::string duration(double seconds);

}  // namespace moge
