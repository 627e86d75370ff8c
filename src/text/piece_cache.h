// Remembers the ids of short pieces: words repeat, so most pieces of a text never reach the merge loop. One
// cache belongs to one thread at a time.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace moge::text {

/// Direct-mapped: a piece has one place, the latest piece keeps it. An entry is one cache line.
class PieceCache {
 public:
  static constexpr size_t kMaxKeyBytes = 30;
  static constexpr size_t kMaxIds = 8;

  PieceCache() : entries_(size_t{1} << kLogEntries) {}

  static bool can_hold(std::string_view piece) { return piece.size() <= kMaxKeyBytes; }

  /// The remembered ids, empty if there are none. Only for pieces that can_hold().
  std::span<const int32_t> find(std::string_view piece) const {
    const Entry& entry = entries_[slot(piece)];
    if (entry.key_bytes != piece.size() || std::memcmp(entry.key, piece.data(), piece.size()) != 0) return {};
    return {entry.ids, entry.num_ids};
  }
  void insert(std::string_view piece, std::span<const int32_t> ids) {
    if (ids.empty() || ids.size() > kMaxIds) return;
    Entry& entry = entries_[slot(piece)];
    entry.key_bytes = static_cast<uint8_t>(piece.size());
    entry.num_ids = static_cast<uint8_t>(ids.size());
    std::memcpy(entry.key, piece.data(), piece.size());
    std::memcpy(entry.ids, ids.data(), ids.size_bytes());
  }

 private:
  static constexpr int kLogEntries = 15;  // 2 MB: fits a core's second-level cache

  struct alignas(64) Entry {
    uint8_t key_bytes = 0;
    uint8_t num_ids = 0;
    char key[kMaxKeyBytes];
    int32_t ids[kMaxIds];
  };
  static_assert(sizeof(Entry) == 64);

  static size_t slot(std::string_view piece) {
    uint64_t hash = piece.size();
    while (!piece.empty()) {
      uint64_t word = 0;
      const size_t n = piece.size() < 8 ? piece.size() : 8;
      std::memcpy(&word, piece.data(), n);
      hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 29;
      piece.remove_prefix(n);
    }
    return (hash * 0x9E3779B97F4A7C15U) >> (64 - kLogEntries);
  }

  std::vector<Entry> entries_;
};

}  // namespace moge::text
