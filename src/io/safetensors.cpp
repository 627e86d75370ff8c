#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/checksum.h"
#include "core/error.h"
#include "core/json.h"

namespace moge::io {
namespace {

using nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr int kMaxHeaderDepth = 4;

constexpr std::array<std::pair<DType, const char*>, 8> kNames = {{
    {DType::kF32, "F32"},
    {DType::kBF16, "BF16"},
    {DType::kF16, "F16"},
    {DType::kI64, "I64"},
    {DType::kI32, "I32"},
    {DType::kI8, "I8"},
    {DType::kU8, "U8"},
    {DType::kFP8E4M3, "F8_E4M3"},
}};

std::optional<DType> dtype_named(const std::string& name) {
  for (const auto& [dtype, dtype_name] : kNames) {
    if (name == dtype_name) return dtype;
  }
  return std::nullopt;
}

/// A list of `key`'s non-negative integers.
std::vector<int64_t> read_integers(JsonObject& o, const std::string& key) {
  const json* value = o.find(key);
  if (value == nullptr) o.throw_missing(key);
  std::vector<int64_t> integers;
  const auto is_size = [](const json& v) { return v.is_number_unsigned() && v.get<uint64_t>() <= INT64_MAX; };
  if (!value->is_array() || !std::ranges::all_of(*value, is_size))
    o.throw_wrong(key, "a list of non-negative integers");
  for (const json& v : *value) integers.push_back(v.get<int64_t>());
  return integers;
}

Shape make_shape(const std::vector<int64_t>& d) {
  switch (d.size()) {
    case 0:
      return {1};
    case 1:
      return {d[0]};
    case 2:
      return {d[0], d[1]};
    case 3:
      return {d[0], d[1], d[2]};
    default:
      return {d[0], d[1], d[2], d[3]};
  }
}

TensorInfo read_tensor(const std::string& name, const json& entry, const std::string& source) {
  JsonObject o(entry, str(source, ": tensor ", json_excerpt(name, 200)));
  TensorInfo info;
  info.name = name;
  const std::optional<DType> dtype = dtype_named(o.require(o.text("dtype"), "dtype"));
  if (!dtype) o.throw_wrong("dtype", "F32, BF16, F16, I64, I32, I8, U8 or F8_E4M3");
  info.dtype = *dtype;

  const std::vector<int64_t> dims = read_integers(o, "shape");
  if (dims.size() > Shape::kMaxDims) o.throw_wrong("shape", "at most 4 dimensions");
  // Strides multiply dimensions even where another one is 0.
  int64_t product = size_of(info.dtype);
  for (const int64_t d : dims) {
    if (__builtin_mul_overflow(product, std::max<int64_t>(d, 1), &product))
      o.throw_wrong("shape", "a size below 2^63 bytes");
  }
  info.shape = make_shape(dims);

  const std::vector<int64_t> offsets = read_integers(o, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) o.throw_wrong("data_offsets", "[begin, end]");
  info.begin = offsets[0];
  info.end = offsets[1];
  const int64_t bytes = info.shape.numel() * size_of(info.dtype);
  check<FileError>(info.end - info.begin == bytes, o.where(), ": ", name_of(info.dtype), info.shape,
                   " takes ", bytes, " bytes, data_offsets [", info.begin, ", ", info.end, "] give ",
                   info.end - info.begin);
  check<FileError>(o.unread().empty(), o.where(), ": unknown key '",
                   o.unread().empty() ? "" : o.unread().front(), "'");
  return info;
}

/// The tensors must fill the data section: no overlap, no gap, no rest.
void check_ranges(const std::vector<TensorInfo>& tensors, int64_t data_bytes, const std::string& source) {
  int64_t expected = 0;
  for (const TensorInfo& info : tensors) {
    check<FileError>(info.begin == expected, source, ": tensor ", json_excerpt(info.name, 200),
                     " begins at byte ", info.begin, " of the data, expected ", expected,
                     " where the one before ends (",
                     info.begin < expected ? "they overlap)" : "bytes between them belong to none)");
    expected = info.end;
  }
  check<FileError>(expected == data_bytes, source, ": the header describes ", expected,
                   " bytes of data, the file has ", data_bytes, expected > data_bytes ? " (truncated)" : "");
}

}  // namespace

const char* safetensors_name(DType dtype) {
  for (const auto& [candidate, name] : kNames) {
    if (candidate == dtype) return name;
  }
  throw Error(str("internal error: dtype ", name_of(dtype), " has no safetensors name"));
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source) {
  const auto file_bytes = static_cast<int64_t>(file.size());
  check<FileError>(file_bytes >= kLengthBytes, source,
                   ": not a safetensors file: expected at least 8 bytes, got ", file_bytes);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), kLengthBytes);
  check<FileError>(header_bytes <= static_cast<uint64_t>(kMaxHeaderBytes), source, ": header of ",
                   header_bytes, " bytes: expected at most ", kMaxHeaderBytes, " (not a safetensors file?)");
  const auto available = static_cast<uint64_t>(file_bytes - kLengthBytes);
  check<FileError>(header_bytes <= available, source, ": header of ", header_bytes, " bytes in a file with ",
                   available, " bytes left (truncated)");

  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, header_bytes);
  check<FileError>(text.starts_with('{'), source,
                   ": the header does not begin with '{' (not a safetensors file?)");
  const json root = parse_json(text, str(source, ": header"), kMaxHeaderDepth);
  SafetensorsHeader header;
  header.data_begin = kLengthBytes + static_cast<int64_t>(header_bytes);
  for (const auto& [name, entry] : root.items()) {
    if (name != "__metadata__") {
      header.tensors.push_back(read_tensor(name, entry, source));
      continue;
    }
    JsonObject metadata(entry, str(source, ": __metadata__"));
    for (const auto& [key, value] : entry.items())
      header.metadata[key] = metadata.require(metadata.text(key), key);
  }
  std::ranges::sort(header.tensors, {}, [](const TensorInfo& t) { return std::pair(t.begin, t.end); });
  check_ranges(header.tensors, file_bytes - header.data_begin, source);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(path), header_(parse_safetensors_header(file_.bytes(), path.string())) {
  for (size_t i = 0; i < header_.tensors.size(); ++i) index_[header_.tensors[i].name] = i;
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &header_.tensors[it->second];
}

std::span<const std::byte> SafetensorsFile::bytes_of(const TensorInfo& info) const {
  return file_.bytes().subspan(static_cast<size_t>(header_.data_begin + info.begin),
                               static_cast<size_t>(info.end - info.begin));
}

Tensor SafetensorsFile::tensor(const TensorInfo& info) {
  const std::span<const std::byte> bytes = bytes_of(info);
  // Tensor has one pointer type; the map itself is read-only.
  auto* data = const_cast<std::byte*>(bytes.data());
  if ((header_.data_begin + info.begin) % size_of(info.dtype) != 0) {
    data =
        realigned_.emplace_back(static_cast<int64_t>(bytes.size()), "unaligned tensor " + info.name).data();
    std::memcpy(data, bytes.data(), bytes.size());
  }
  return {data, info.dtype, info.shape};
}

bool SafetensorsFile::verify(const TensorInfo& info) const {
  const auto it = metadata().find(kChecksumPrefix + info.name);
  if (it == metadata().end()) return false;
  Checksum checksum;
  checksum.update(bytes_of(info));
  check<FileError>(checksum.hex() == it->second, path().string(), ": tensor '", info.name,
                   "' is corrupt: expected ", "checksum ", it->second, ", got ", checksum.hex());
  return true;
}

}  // namespace moge::io
