#include "core/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/log.h"
#include "core/str.h"

namespace moge {

namespace {

bool can_rewrite() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && term && std::string_view(term) != "dumb";
}

/// How many rows of the terminal `characters` take; 1 if it does not say how wide it is.
int rows_of(size_t characters) {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || characters == 0) return 1;
  return static_cast<int>((characters - 1) / size.ws_col + 1);
}

}  // namespace

ProgressLine::ProgressLine(std::chrono::milliseconds quiet)
    : terminal_(can_rewrite()), first_(Clock::now() + quiet) {}

void ProgressLine::show(const std::string& line, bool force) {
  const auto pause = terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(5);
  const auto now = Clock::now();
  if (now < first_ || (!force && now - last_ < pause) || !logs(LogLevel::kInfo)) return;
  last_ = now;
  if (!terminal_) return log_info(line);
  // To the first of the line's rows, and clear from there on.
  const std::string up = rows_ > 1 ? str("\033[", rows_ - 1, "A") : "";
  std::fprintf(stderr, "\r%s\033[J%s", up.c_str(), line.c_str());
  rows_ = rows_of(line.size());
}

void ProgressLine::end() {
  if (rows_ > 0) std::fputc('\n', stderr);
  rows_ = 0;
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
