// Failures and limits inside the template engine; ChatTemplate turns them into FileError and RequestError.
#pragma once
#include <cstdint>
#include <string>

#include "core/str.h"

namespace moge::text::jinja {

/// The template is malformed (lexer and parser), or failed at a line while running.
struct TemplateError {
  int line;
  std::string message;
};

/// Thrown while running, by code that doesn't know the line; the interpreter rethrows a TemplateError.
struct RuntimeError {
  std::string message;
};

/// The template called raise_exception(message).
struct RaisedException {
  std::string message;
};

template <class... Args>
[[noreturn]] void fail(const Args&... args) {
  throw RuntimeError{str(args...)};
}

/// What one rendering may use, so that a hostile template ends: 20 million evaluation steps (seconds) and
/// 128 MiB of strings and lists built.
class Budget {
 public:
  void step(int64_t n = 1) {
    steps_ -= n;
    if (steps_ < 0) fail("the template runs too long (more than ", kMaxSteps, " steps)");
  }
  void bytes(int64_t n) {
    bytes_ -= n;
    if (bytes_ < 0) fail("the template builds too much text (more than ", kMaxBytes, " bytes)");
  }

 private:
  static constexpr int64_t kMaxSteps = 20'000'000;
  static constexpr int64_t kMaxBytes = int64_t{128} << 20;
  int64_t steps_ = kMaxSteps;
  int64_t bytes_ = kMaxBytes;
};

}  // namespace moge::text::jinja
