// What every op call needs and no op owns: passed, never global.
#pragma once
#include <span>

#include "core/backend.h"
#include "core/buffer.h"
#include "core/thread_pool.h"

namespace moge {

/// Scratch memory of one op call, from a block planned before the run. In planning mode dispatch() only
/// records the largest need and runs nothing (see ExecContext::planning).
class Workspace {
 public:
  Workspace() = default;
  /// With a backend: memory of its device.
  explicit Workspace(int64_t bytes, Backend* backend = nullptr)
      : buffer_(bytes, "op workspace", backend), memory_(buffer_.data(), static_cast<size_t>(bytes)) {}
  /// Over memory of someone else: an op that calls other ops gives them a part of its own workspace.
  explicit Workspace(std::span<std::byte> memory) : memory_(memory) {}
  /// 64-byte aligned. Throws OutOfMemoryError when the plan was smaller.
  std::span<std::byte> get(int64_t bytes, const char* op);
  void plan(int64_t bytes) { planned_ = bytes > planned_ ? bytes : planned_; }
  int64_t planned_bytes() const { return planned_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.size()); }

 private:
  Buffer buffer_;
  std::span<std::byte> memory_;
  int64_t planned_ = 0;
};

/// Sees every op that is dispatched; a profiler brackets its work with events.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void before(const char* op) = 0;
  virtual void after(const char* op) = 0;
};

struct ExecContext {
  Device device;
  ThreadPool* pool = nullptr;      ///< of CPU ops
  Backend* backend = nullptr;      ///< of the device, when that is not the CPU
  OpObserver* observer = nullptr;  ///< may be null
  Workspace* workspace = nullptr;
  /// True: ops check their arguments and record the workspace they need, but neither read nor write tensors
  /// (which may have no memory yet). A model plans by running its own forward and backward this way once.
  bool planning = false;
};

}  // namespace moge
