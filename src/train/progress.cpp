#include "train/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "core/log.h"
#include "core/str.h"

namespace moge::train {

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const std::string& line, bool force) {
  const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(5);
  const auto now = Clock::now();
  if (!force && now - last_ < pause) return;
  last_ = now;
  if (!terminal_) return log_info(line);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  open_ = true;
}

void ProgressLine::end() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

std::string duration(double seconds) {
  const int64_t s = std::llround(seconds);
  const auto two = [](int64_t v) { return str(v < 10 ? "0" : "", v); };
  if (s >= 3600) return str(s / 3600, "h", two(s / 60 % 60), "m");
  return s >= 60 ? str(s / 60, "m", two(s % 60), "s") : str(s, "s");
}

}  // namespace moge::train
