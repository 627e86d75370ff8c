#include "core/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/log.h"
#include "core/str.h"

namespace moge {

ProgressLine::ProgressLine(std::chrono::milliseconds quiet)
    : terminal_(isatty(STDERR_FILENO) == 1), first_(Clock::now() + quiet) {}

void ProgressLine::show(const std::string& line, bool force) {
  const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(5);
  const auto now = Clock::now();
  if (now < first_ || (!force && now - last_ < pause) || !logs(LogLevel::kInfo)) return;
  last_ = now;
  if (!terminal_) return log_info(line);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  open_ = true;
}

void ProgressLine::end() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

std::string progress_bar(int64_t done, int64_t total) {
  constexpr double kWidth = 20;
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const auto full = static_cast<size_t>(kWidth * share);
  const std::string percent = str(static_cast<int64_t>(100 * share));
  return str("[", std::string(full, '#'), std::string(static_cast<size_t>(kWidth) - full, '-'), "] ",
             std::string(3 - std::min<size_t>(3, percent.size()), ' '), percent, "%");
}

std::string duration(double seconds) {
  const int64_t s = std::llround(seconds);
  const auto two = [](int64_t v) { return str(v < 10 ? "0" : "", v); };
  if (s >= 3600) return str(s / 3600, "h", two(s / 60 % 60), "m");
  return s >= 60 ? str(s / 60, "m", two(s % 60), "s") : str(s, "s");
}

}  // namespace moge
