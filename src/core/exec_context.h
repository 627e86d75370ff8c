// What every op call needs and no op owns: passed, never global.
#pragma once
#include <span>

#include "core/buffer.h"
#include "core/thread_pool.h"

namespace moge {

/// Scratch memory of one op call, from a block planned before the run. In planning mode dispatch() only
/// records the largest need and runs nothing (see ExecContext::planning).
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(int64_t bytes) : buffer_(bytes, "op workspace") {}
  /// 64-byte aligned. Throws OutOfMemoryError when the plan was smaller.
  std::span<std::byte> get(int64_t bytes, const char* op);
  void plan(int64_t bytes) { planned_ = bytes > planned_ ? bytes : planned_; }
  int64_t planned_bytes() const { return planned_; }
  int64_t bytes() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  int64_t planned_ = 0;
};

struct ExecContext {
  Device device;
  ThreadPool* pool = nullptr;
  Workspace* workspace = nullptr;
  /// True: ops check their arguments and record the workspace they need, but neither read nor write tensors
  /// (which may have no memory yet). A model plans by running its own forward and backward this way once.
  bool planning = false;
};

}  // namespace moge
