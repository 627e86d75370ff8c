#include "core/log.h"

#include <cstdio>
#include <cstdlib>

namespace moge {

namespace {

LogLevel threshold() {
  static const LogLevel level = [] {
    const char* env = std::getenv("MOGE_LOG");
    const std::string name = env ? env : "info";
    if (name == "error") return LogLevel::kError;
    if (name == "warning") return LogLevel::kWarning;
    if (name != "info")
      std::fprintf(stderr, "warning: MOGE_LOG: expected error, warning or info, got '%s'\n", env);
    return LogLevel::kInfo;
  }();
  return level;
}

}  // namespace

void log_line(LogLevel level, const std::string& line) {
  if (level > threshold()) return;
  const std::string with_end = line + "\n";
  std::fwrite(with_end.data(), 1, with_end.size(), stderr);
}

}  // namespace moge
