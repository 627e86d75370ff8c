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

std::string printable(std::string_view message) {
  std::string text;
  for (size_t i = 0; i < message.size(); ++i) {
    const auto byte = static_cast<unsigned char>(message[i]);
    const std::string_view rest = message.substr(i + 1);
    // U+0080 to U+009F: terminals take them for escape sequences, too.
    const bool c1 = byte == 0xC2 && !rest.empty() && (static_cast<unsigned char>(rest[0]) & 0xE0) == 0x80;
    const bool kept = byte == '\t' || (byte == '\n' && rest.starts_with("  "));
    if ((byte < 0x20 || byte == 0x7F || c1) && !kept) {
      char hex[8];
      std::snprintf(hex, sizeof(hex), "\\x%02x", c1 ? static_cast<unsigned char>(rest[0]) : byte);
      text += hex;
      i += c1 ? 1 : 0;
    } else {
      text += message[i];
    }
  }
  return text;
}

bool logs(LogLevel level) {
  return level <= threshold();
}

void log_line(LogLevel level, const std::string& line) {
  if (!logs(level)) return;
  const std::string with_end = printable(line) + "\n";
  std::fwrite(with_end.data(), 1, with_end.size(), stderr);
}

}  // namespace moge
