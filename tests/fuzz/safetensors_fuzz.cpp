// Any bytes are either refused with a FileError or a file whose tensors all lie inside it.
#include <cstdlib>
#include <span>

#include "core/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const moge::io::SafetensorsHeader header = moge::io::parse_safetensors_header(bytes, "fuzz");
    int64_t end = header.data_begin;
    for (const moge::io::TensorInfo& info : header.tensors) {
      const moge::Tensor tensor(nullptr, info.dtype, info.shape);
      if (tensor.bytes() != info.end - info.begin) std::abort();
      end += tensor.bytes();
    }
    if (end != static_cast<int64_t>(size)) std::abort();
  } catch (const moge::FileError&) {
  }
  return 0;
}
