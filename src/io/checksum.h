// XXH64 of tensor bytes: fast enough to check every load of a checkpoint, and no defence against an attacker.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace moge::io {

class Checksum {
 public:
  static constexpr size_t kHexDigits = 16;
  Checksum();
  ~Checksum();
  void update(std::span<const std::byte> bytes);
  /// Of everything so far, as 16 lower-case hexadecimal digits.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moge::io
