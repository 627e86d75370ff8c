// The safetensors format: 8 bytes little-endian header length, a JSON header that maps names to dtype, shape
// and byte range, then the tensors' bytes without gaps. Read by mapping the file; written in any tensor
// order. A file may come from anywhere, so every number in it is checked before use.
//
// Our files also carry a checksum of each tensor's bytes in "__metadata__", under "xxh64.NAME": the format
// allows any string there, and other readers ignore it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/files.h"
#include "core/tensor.h"

namespace moge::io {

inline constexpr const char* kChecksumPrefix = "xxh64.";

/// "F32", "BF16", "F8_E4M3", ...
const char* safetensors_name(DType dtype);

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;        ///< a scalar (no dimensions) reads as [1]
  int64_t begin = 0;  ///< bytes from the start of the data section
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< by begin
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  ///< byte offset of the data section in the file
};

/// Throws FileError unless `file` is a whole and consistent file of supported dtypes with at most four
/// dimensions.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source);

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  /// Null when there is none of that name.
  const TensorInfo* find(const std::string& name) const;
  /// The mapped elements, contiguous and read-only (a write is a segmentation fault); valid as long as this
  /// object. A tensor that the file does not align to its element size is copied.
  Tensor tensor(const TensorInfo& info);
  /// False when the file has no checksum of it. Throws FileError when it has another one.
  bool verify(const TensorInfo& info) const;
  /// Has the system read the tensor from disk ahead of its use.
  void will_need(const TensorInfo& info) const { file_.will_need(bytes_of(info)); }

 private:
  std::span<const std::byte> bytes_of(const TensorInfo& info) const;
  MappedFile file_;
  SafetensorsHeader header_;
  std::map<std::string, size_t> index_;
  std::deque<Buffer> realigned_;
};

}  // namespace moge::io
