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
  constexpr uint32_t bits(uint64_t i) const { return block(i / 4)[i % 4]; }
  /// Uniform in [0, 1), 24 bits.
  constexpr float uniform(uint64_t i) const { return to_uniform(bits(i)); }
  /// Standard normal (Box-Muller on values 2i, 2i+1).
  float normal(uint64_t i) const {
    const Block b = block(i / 2);
    return i % 2 == 0 ? box_muller(b[0], b[1]) : box_muller(b[2], b[3]);
  }
  /// fn(i, normal(i)) for begin <= i < end in this order, at less than half the price of each alone.
  template <class Fn>
  void for_normals(uint64_t begin, uint64_t end, const Fn& fn) const {
    uint64_t i = begin;
    if (i % 2 == 1 && i < end) {
      fn(i, normal(i));
      ++i;
    }
    for (; i + 1 < end; i += 2) {
      const Block b = block(i / 2);
      fn(i, box_muller(b[0], b[1]));
      fn(i + 1, box_muller(b[2], b[3]));
    }
    if (i < end) fn(i, normal(i));
  }

  /// Sequential use: the next value of each kind.
  uint32_t next_bits() { return bits(next_++); }
  float next_uniform() { return uniform(next_++); }
  /// Uniform in 0..n-1 (Lemire's multiply-shift; bias below n / 2^32).
  uint32_t next_below(uint32_t n) { return static_cast<uint32_t>((uint64_t{next_bits()} * n) >> 32); }
  uint64_t position() const { return next_; }

 private:
  using Block = std::array<uint32_t, 4>;
  /// Bits 4i .. 4i+3.
  constexpr Block block(uint64_t i) const {
    return philox4x32({static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32),
                       static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                      {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
  }
  static constexpr float to_uniform(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24F; }
  static float box_muller(uint32_t a, uint32_t b) {
    return std::sqrt(-2.0F * std::log(1.0F - to_uniform(a))) * std::cos(6.28318530718F * to_uniform(b));
  }

  uint64_t seed_;
  uint64_t stream_;
  uint64_t next_ = 0;
};

}  // namespace moge
