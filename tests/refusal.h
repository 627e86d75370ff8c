// What an error says, for tests of messages.
#pragma once
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

}  // namespace moge::test
