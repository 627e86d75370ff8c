// XXH64 (seed 0): fast enough to check every load of a checkpoint or corpus, and no defence against an
// attacker.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace moge {

class Checksum {
 public:
  static constexpr size_t kHexDigits = 16;
  Checksum();
  ~Checksum();
  void update(std::span<const std::byte> bytes);
  /// Of everything so far.
  uint64_t value() const;
  std::string hex() const;  ///< 16 lower-case hexadecimal digits

  static uint64_t of(std::span<const std::byte> bytes);
  static std::string hex(uint64_t value);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moge
