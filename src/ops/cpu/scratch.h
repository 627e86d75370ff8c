// Cuts an op's workspace into arrays. The same code counts when it has no memory yet, so that
// workspace_bytes() and run() cannot disagree.
#pragma once
#include <span>

#include "core/buffer.h"

namespace moge::ops::cpu {

class Scratch {
 public:
  Scratch() = default;  ///< counts; arrays are null
  explicit Scratch(std::span<std::byte> memory) : memory_(memory) {}
  /// n uninitialised, 64-byte aligned elements.
  template <class T>
  T* take(int64_t n) {
    auto* p = memory_.data() ? reinterpret_cast<T*>(memory_.data() + used_) : nullptr;
    used_ += align_up(n * static_cast<int64_t>(sizeof(T)));
    return p;
  }
  int64_t used_bytes() const { return used_; }

 private:
  std::span<std::byte> memory_;
  int64_t used_ = 0;
};

}  // namespace moge::ops::cpu
