// TensorBoard event files: TFRecord framing (length, masked CRC32C, payload, masked CRC32C) around Event
// protobufs with scalar summaries. Written by hand: three small messages do not need the protobuf library.
#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace moge::train {

class EventFile {
 public:
  /// Creates events.out.tfevents.TIME.moge in the directory. It begins with a mark by which TensorBoard drops
  /// what earlier files there say of `first_step` and later: steps that a resumed run does again. FileError.
  EventFile(const std::filesystem::path& dir, int64_t first_step);
  struct Scalar {
    std::string tag;
    float value;
  };
  void write(int64_t step, const std::vector<Scalar>& scalars);

 private:
  void record(const std::string& event);
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

/// CRC-32C (Castagnoli) of the bytes, and TFRecord's masked form.
uint32_t crc32c(const std::string& bytes);
uint32_t masked_crc32c(const std::string& bytes);

}  // namespace moge::train
