// What an error says, for tests of messages.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"

namespace moge::test {

/// The message of the FileError (or other type) that fn() throws, or "(accepted)".
template <class E = FileError>
std::string refusal(const auto& fn) {
  try {
    fn();
  } catch (const E& e) {
    return e.what();
  }
  return "(accepted)";
}

/// fn() must throw a FileError (or other type) that says `part`.
template <class E = FileError>
void expect_refused(const auto& fn, const std::string& part) {
  const std::string message = refusal<E>(fn);
  EXPECT_NE(message.find(part), std::string::npos) << message << "\nexpected: " << part;
}

}  // namespace moge::test
