#include "core/checksum.h"

#define XXH_INLINE_ALL  // no library to link
#include <xxhash.h>

namespace moge {

struct Checksum::State {
  XXH64_state_t xxh64;
};

Checksum::Checksum() : state_(std::make_unique<State>()) {
  XXH64_reset(&state_->xxh64, 0);
}

Checksum::~Checksum() = default;

void Checksum::update(std::span<const std::byte> bytes) {
  XXH64_update(&state_->xxh64, bytes.data(), bytes.size());
}

uint64_t Checksum::value() const {
  return XXH64_digest(&state_->xxh64);
}

std::string Checksum::hex() const {
  return hex(value());
}

uint64_t Checksum::of(std::span<const std::byte> bytes) {
  return XXH64(bytes.data(), bytes.size(), 0);
}

std::string Checksum::hex(uint64_t value) {
  std::string digits(kHexDigits, '0');
  for (size_t i = kHexDigits; i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  return digits;
}

}  // namespace moge
