// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): value i of a stream is a pure function of
// (seed, stream, i), so any thread may draw any part and a resumed run continues exactly.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

namespace moge {

constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53U} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57U} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(p0)};
    key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
  }
  return c;
}

class Rng {
 public:
  explicit constexpr Rng(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  /// 32 random bits, the i-th of the stream.
  constexpr uint32_t bits(uint64_t i) const {
    const uint64_t block = i / 4;
    return philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                       static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                      {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)})[i % 4];
  }
  /// Uniform in [0, 1), 24 bits.
  constexpr float uniform(uint64_t i) const { return static_cast<float>(bits(i) >> 8) * 0x1p-24F; }
  /// Standard normal (Box-Muller on values 2i, 2i+1).
  float normal(uint64_t i) const {
    const float u = 1.0F - uniform(2 * i);
    return std::sqrt(-2.0F * std::log(u)) * std::cos(6.28318530718F * uniform(2 * i + 1));
  }

  /// Sequential use: the next value of each kind.
  uint32_t next_bits() { return bits(next_++); }
  float next_uniform() { return uniform(next_++); }
  /// Uniform in 0..n-1 (Lemire's multiply-shift; bias below n / 2^32).
  uint32_t next_below(uint32_t n) { return static_cast<uint32_t>((uint64_t{next_bits()} * n) >> 32); }
  uint64_t position() const { return next_; }

 private:
  uint64_t seed_;
  uint64_t stream_;
  uint64_t next_ = 0;
};

}  // namespace moge
