// Owners of memory: Buffer (one aligned block) and Arena (a planned block handed out piece by piece).
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/backend.h"
#include "core/tensor.h"

namespace moge {

inline constexpr int64_t kAlignment = 64;  ///< bytes: one cache line, one AVX-512 register

constexpr int64_t align_up(int64_t n, int64_t to = kAlignment) {
  return (n + to - 1) / to * to;
}

/// Gives a Buffer's memory back to where it came from.
struct FreeMemory {
  void operator()(std::byte* p) const;
  Backend* backend = nullptr;  ///< null: the CPU's
};

/// An aligned block of memory: zero-filled on the CPU, as it comes on a device. Throws OutOfMemoryError
/// naming `purpose`.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes, const std::string& purpose = "buffer", Backend* backend = nullptr);
  std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<std::byte, FreeMemory> data_;
  int64_t bytes_ = 0;
};

/// A tensor that owns its memory, for tests and for set-up code; the hot path uses views into an Arena.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  OwnedTensor(DType dtype, Shape shape, const std::string& purpose = "tensor");
  const Tensor& get() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }  // NOLINT(google-explicit-constructor)
  const Tensor* operator->() const { return &tensor_; }

 private:
  Buffer buffer_;
  Tensor tensor_;
};

/// Hands out tensors from one block, in order. Two passes over the same code make a memory plan: a default
/// Arena only counts (its tensors have no data), then Arena(bytes) of the counted size gives real ones.
class Arena {
 public:
  Arena() = default;  ///< counting pass
  /// With a backend: memory of its device.
  Arena(int64_t bytes, const std::string& purpose, Backend* backend = nullptr);
  /// A 64-byte aligned contiguous tensor. Throws OutOfMemoryError past the planned size.
  Tensor alloc(DType dtype, Shape shape);
  int64_t used_bytes() const { return used_; }
  bool counting() const { return buffer_.data() == nullptr; }

 private:
  Buffer buffer_;
  Device device_;
  std::string purpose_ = "plan";
  int64_t used_ = 0;
};

}  // namespace moge
