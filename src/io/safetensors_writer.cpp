#include "io/safetensors_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/buffer.h"
#include "core/checksum.h"
#include "core/error.h"
#include "io/copy_convert.h"

namespace moge::io {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kDataAlignment = 8;
constexpr int64_t kPieceBytes = int64_t{8} << 20;

std::span<const std::byte> bytes_of(const Tensor& contiguous) {
  return {static_cast<const std::byte*>(contiguous.data), static_cast<size_t>(contiguous.bytes())};
}

/// Calls fn with contiguous tensors of dtype `dtype` that follow each other in the row-major order of
/// `source`.
template <class Fn>
void for_each_piece(const Tensor& source, DType dtype, ThreadPool* pool, const Fn& fn) {
  if (source.numel() == 0) return;
  if (source.dtype == dtype && source.is_contiguous()) return fn(source);
  const int64_t slab = source.numel() / source.dim(0) * size_of(dtype);  // bytes of one index of dimension 0
  if (slab > kPieceBytes && source.shape.ndim() > 1) {
    for (int64_t i = 0; i < source.dim(0); ++i) for_each_piece(source[i], dtype, pool, fn);
    return;
  }
  const int64_t step = std::max<int64_t>(1, kPieceBytes / slab);
  const Buffer staging(std::min(step, source.dim(0)) * slab, "checkpoint staging");
  for (int64_t begin = 0; begin < source.dim(0); begin += step) {
    const Tensor part = source.slice(0, begin, std::min(source.dim(0), begin + step));
    const Tensor piece(staging.data(), dtype, part.shape);
    copy_convert(piece, part, pool);
    fn(piece);
  }
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(FileWriter& out, const std::vector<TensorSpec>& specs,
                                     std::map<std::string, std::string> metadata)
    : out_(out), metadata_(std::move(metadata)), missing_(specs.size()) {
  metadata_["format"] = "pt";
  std::vector<const TensorSpec*> order;
  for (const TensorSpec& spec : specs) order.push_back(&spec);
  std::ranges::stable_sort(order, std::ranges::greater{},
                           [](const TensorSpec* s) { return size_of(s->dtype); });
  int64_t position = 0;
  for (const TensorSpec* spec : order) {
    const TensorInfo info{spec->name, spec->dtype, spec->shape, position, position + spec->bytes()};
    check<FileError>(entries_.emplace(spec->name, Entry{info}).second, "tensor '", spec->name,
                     "' occurs twice");
    metadata_[kChecksumPrefix + spec->name] = std::string(Checksum::kHexDigits, '0');
    position = info.end;
  }
  const std::string text = header();  // its length is final: the checksums only replace zeros
  data_begin_ = static_cast<int64_t>(text.size());
  out_.write(text);
}

std::string SafetensorsWriter::header() const {
  nlohmann::json root;
  root["__metadata__"] = metadata_;
  for (const auto& [name, entry] : entries_) {
    std::vector<int64_t> shape;
    for (int i = 0; i < entry.info.shape.ndim(); ++i) shape.push_back(entry.info.shape[i]);
    root[name] = {{"dtype", safetensors_name(entry.info.dtype)},
                  {"shape", shape},
                  {"data_offsets", {entry.info.begin, entry.info.end}}};
  }
  std::string text = root.dump();
  text.resize(static_cast<size_t>(align_up(static_cast<int64_t>(text.size()), kDataAlignment)), ' ');
  std::string length(kLengthBytes, '\0');
  for (size_t i = 0; i < length.size(); ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

void SafetensorsWriter::write(const std::string& name, const Tensor& source, ThreadPool* pool) {
  const auto it = entries_.find(name);
  dcheck(it != entries_.end() && !it->second.written, "tensor '", name,
         "' was not announced or is written twice");
  Entry& entry = it->second;
  check<ShapeError>(source.numel() == entry.info.shape.numel(), "tensor '", name, "' was announced as ",
                    entry.info.shape, ", got ", source.str());
  Checksum checksum;
  int64_t position = data_begin_ + entry.info.begin;
  for_each_piece(source, entry.info.dtype, pool, [&](const Tensor& piece) {
    checksum.update(bytes_of(piece));
    out_.write_at(position, bytes_of(piece));
    position += piece.bytes();
  });
  metadata_[kChecksumPrefix + name] = checksum.hex();
  entry.written = true;
  --missing_;
}

void SafetensorsWriter::finish() {
  dcheck(complete(), missing_, " announced tensors were not written");
  const std::string text = header();
  out_.write_at(0, std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace moge::io
