#include "io/checksum.h"

#define XXH_INLINE_ALL  // no library to link
#include <xxhash.h>

#include <cstdint>

namespace moge::io {

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

std::string Checksum::hex() const {
  uint64_t value = XXH64_digest(&state_->xxh64);
  std::string digits(kHexDigits, '0');
  for (size_t i = kHexDigits; i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  return digits;
}

}  // namespace moge::io
