#include "train/event_file.h"

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/error.h"

namespace moge::train {

namespace {

template <class T>
std::string little_endian(T value) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

// Protobuf wire format: key = field number << 3 | wire type.
constexpr int kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string field(int number, int wire_type, const std::string& payload) {
  return varint(static_cast<uint64_t>(number << 3 | wire_type)) +
         (wire_type == kBytes ? varint(payload.size()) : "") + payload;
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

uint32_t crc32c(const std::string& bytes) {
  constexpr uint32_t kPolynomial = 0x82f63b78U;  // reflected
  uint32_t crc = ~0U;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
  }
  return ~crc;
}

uint32_t masked_crc32c(const std::string& bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8U;
}

EventFile::EventFile(const std::filesystem::path& dir, int64_t first_step)
    : path_(dir / str("events.out.tfevents.", static_cast<int64_t>(wall_time()), ".moge")) {
  file_.reset(std::fopen(path_.c_str(), "ab"));
  check<FileError>(file_ != nullptr, path_.string(), ": cannot write: ", std::strerror(errno));
  // Event { double wall_time = 1; string file_version = 3; }
  record(field(1, kFixed64, little_endian(wall_time())) + field(3, kBytes, "brain.Event:2"));
  // Event { int64 step = 2; SessionLog session_log = 7; }; SessionLog's field 1, its status, is START = 1
  record(field(1, kFixed64, little_endian(wall_time())) +
         field(2, kVarint, varint(static_cast<uint64_t>(first_step))) +
         field(7, kBytes, field(1, kVarint, varint(1))));
}

void EventFile::write(int64_t step, const std::vector<Scalar>& scalars) {
  // Event { double wall_time = 1; int64 step = 2; Summary summary = 5; }
  // Summary { repeated Value value = 1; }  Value { string tag = 1; float simple_value = 2; }
  std::string summary;
  for (const Scalar& s : scalars)
    summary += field(1, kBytes, field(1, kBytes, s.tag) + field(2, kFixed32, little_endian(s.value)));
  record(field(1, kFixed64, little_endian(wall_time())) +
         field(2, kVarint, varint(static_cast<uint64_t>(step))) + field(5, kBytes, summary));
}

void EventFile::record(const std::string& event) {
  const std::string length = little_endian(static_cast<uint64_t>(event.size()));
  const std::string bytes =
      length + little_endian(masked_crc32c(length)) + event + little_endian(masked_crc32c(event));
  const bool ok = std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size() &&
                  std::fflush(file_.get()) == 0;
  check<FileError>(ok, path_.string(), ": cannot write: ", std::strerror(errno));
}

}  // namespace moge::train
