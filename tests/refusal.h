// What a FileError says, for tests of messages.
#pragma once
#include <string>

#include "core/error.h"

namespace moge::test {

/// The message of the FileError that fn() throws, or "(accepted)".
std::string refusal(const auto& fn) {
  try {
    fn();
  } catch (const FileError& e) {
    return e.what();
  }
  return "(accepted)";
}

}  // namespace moge::test
