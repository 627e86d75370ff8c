// Writes one safetensors file tensor by tensor, so that a model bigger than memory can pass through.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "io/safetensors.h"

namespace moge::io {

/// A tensor as it shall be stored.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t bytes() const { return shape.numel() * size_of(dtype); }
};

class SafetensorsWriter {
 public:
  /// The tensors that the file will have; in it they lie in this order within each element size, larger sizes
  /// first, which aligns all of them. `out` must be at its start and outlive this. Throws FileError for a
  /// name that occurs twice. The metadata says {"format": "pt"} (transformers asks for it) besides the given
  /// entries.
  SafetensorsWriter(FileWriter& out, const std::vector<TensorSpec>& specs,
                    std::map<std::string, std::string> metadata = {});

  /// Stores the elements of `source` in row-major order, converting in pieces: it may be strided, of another
  /// float dtype, and of other dimensions with as many elements (a fused tensor's part).
  /// Any order, each tensor once.
  void write(const std::string& name, const Tensor& source, ThreadPool* pool = nullptr);
  bool complete() const { return missing_ == 0; }
  /// Writes the header with the checksums. All tensors must have been written; close `out` afterwards.
  void finish();

 private:
  struct Entry {
    TensorInfo info;
    bool written = false;
  };
  std::string header() const;
  FileWriter& out_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
  int64_t data_begin_ = 0;
  size_t missing_ = 0;
};

}  // namespace moge::io
