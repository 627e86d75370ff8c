#include "core/exec_context.h"

namespace moge {

std::span<std::byte> Workspace::get(int64_t bytes, const char* op) {
  check<OutOfMemoryError>(bytes <= static_cast<int64_t>(memory_.size()), op, ": needs ", bytes,
                          " bytes of workspace, planned ", memory_.size());
  return memory_.first(static_cast<size_t>(bytes));
}

}  // namespace moge
