// Typed errors. Libraries throw them, only cli/ turns them into exit codes (docs/design.md, "Errors").
// A message says what went wrong, what was expected, what was found and where.
#pragma once
#include <stdexcept>
#include <string>

#include "core/str.h"

namespace moge {

/// The process exit codes of the command line's contract.
enum class ExitCode : int { kOk = 0, kUsage = 2, kBadFile = 3, kOutOfMemory = 4, kEngine = 5 };

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what, ExitCode code = ExitCode::kEngine)
      : std::runtime_error(what), exit_code(code) {}
  const ExitCode exit_code;
};

/// A tensor or argument that does not fit an op's contract: a caller's mistake.
struct ShapeError : Error {
  explicit ShapeError(const std::string& what) : Error(what) {}
};
/// A flag, environment variable or configuration value that the user got wrong.
struct UsageError : Error {
  explicit UsageError(const std::string& what) : Error(what, ExitCode::kUsage) {}
};
/// A model, tokenizer, corpus or checkpoint file that is missing, broken or contradictory.
struct FileError : Error {
  explicit FileError(const std::string& what) : Error(what, ExitCode::kBadFile) {}
};
struct OutOfMemoryError : Error {
  explicit OutOfMemoryError(const std::string& what) : Error(what, ExitCode::kOutOfMemory) {}
};
/// A request (a prompt, its sampling) that cannot be served; whoever serves others lives on.
struct RequestError : Error {
  explicit RequestError(const std::string& what) : Error(what, ExitCode::kUsage) {}
};

/// A bool that captures the caller's location: a variadic message leaves no room for a defaulted parameter
/// behind it. (The builtins, not std::source_location: clang-tidy-14 lacks it.)
struct Condition {
  // NOLINTNEXTLINE(google-explicit-constructor)
  Condition(bool value, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : value(value), file(file), line(line) {}
  bool value;
  const char* file;
  int line;
};

/// Throws E with the concatenated message when the condition is false. For errors that a user or a file can
/// cause; the message is for them and carries no source location.
template <class E = Error, class... Args>
void check(bool ok, const Args&... message) {
  if (!ok) throw E(str(message...));
}

/// A bug of our own, never reachable from user input: the message names the source line.
template <class... Args>
void dcheck(Condition ok, const Args&... message) {
  if (!ok.value) throw Error(str("internal error: ", message..., " (", ok.file, ":", ok.line, ")"));
}

}  // namespace moge
