// Lines on stderr. Results go to stdout; logs and progress never do.
#pragma once
#include <string>
#include <string_view>

#include "core/str.h"

namespace moge {

enum class LogLevel { kError = 0, kWarning = 1, kInfo = 2 };

/// A message as a terminal may have it, whatever names and texts of files are in it: control characters but
/// tabs become \xNN. A newline stays where an indented line follows, as in messages of several lines.
std::string printable(std::string_view message);

/// printable(), in one write, so that lines of several threads don't mix. MOGE_LOG=error|warning|info.
void log_line(LogLevel level, const std::string& line);
/// Whether lines of a level are written.
bool logs(LogLevel level);

template <class... Args>
void log_info(const Args&... args) {
  log_line(LogLevel::kInfo, str(args...));
}
template <class... Args>
void log_warning(const Args&... args) {
  log_line(LogLevel::kWarning, str("warning: ", args...));
}
template <class... Args>
void log_error(const Args&... args) {
  log_line(LogLevel::kError, str("error: ", args...));
}

}  // namespace moge
