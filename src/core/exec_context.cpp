#include "core/exec_context.h"

namespace moge {

std::span<std::byte> Workspace::get(int64_t bytes, const char* op) {
  check<OutOfMemoryError>(bytes <= buffer_.bytes(), op, ": needs ", bytes, " bytes of workspace, planned ",
                          buffer_.bytes());
  return {buffer_.data(), static_cast<size_t>(bytes)};
}

}  // namespace moge
