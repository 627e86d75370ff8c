// Byte pair encoding: a piece's symbols are merged pair by pair, the pair of the lowest rank first (the
// leftmost one on ties), until no pair is in the table (Sennrich et al. 2016, arXiv 1508.07909).
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/piece_cache.h"

namespace moge::text {

/// The keys of tokenizer.json's "model" of type BPE.
struct BpeModelSpec {
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::optional<std::string> unk_token;
  bool fuse_unk = false;       // neighbouring unknown characters become one unk
  bool byte_fallback = false;  // characters that are not in the vocabulary are spelled <0xE4><0xB8>...
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say
};

/// A map from pairs of ids to (rank, merged id): open addressing, half full at most, one probe for most
/// misses.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };

  explicit MergeTable(size_t num_merges = 0);
  /// A later merge of the same pair replaces the earlier one.
  void insert(int32_t left, int32_t right, Merge merge);
  /// Null if the pair does not merge.
  const Merge* find(int32_t left, int32_t right) const {
    const uint64_t key = pack(left, right);
    for (size_t i = slot(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return &slots_[i].merge;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // no pair: ids are not negative
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };
  static uint64_t pack(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t slot(uint64_t key) const { return (key * 0x9E3779B97F4A7C15U) >> shift_; }

  std::vector<Slot> slots_;
  size_t mask_;
  int shift_;
};

/// What one thread needs to encode; reusable.
class BpeScratch {
 private:
  friend class BpeModel;
  struct Symbol {
    int32_t id;  // -1 once merged into the symbol on its left
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;  // of the left symbol
    int32_t id;        // after the merge
  };
  PieceCache cache_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

class BpeModel {
 public:
  /// byte_level: pieces arrive as bytes and the vocabulary is in the byte-level alphabet. FileError,
  /// beginning with `where`, on merges of unknown tokens, ids that are negative or given twice, or an
  /// unk_token that is no token.
  BpeModel(BpeModelSpec spec, bool byte_level, const std::string& where);

  /// Appends the ids of one piece. Characters (or bytes) that the vocabulary cannot spell become unk_token,
  /// or nothing if the model has none, as in Hugging Face's tokenizers.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  std::optional<int32_t> piece_to_id(std::string_view piece) const;
  const std::vector<std::pair<std::string, int32_t>>& vocab() const { return spec_.vocab; }
  int32_t max_id() const { return max_id_; }

 private:
  void add_initial_symbols(std::string_view piece, BpeScratch& scratch) const;
  void add_character(std::string_view character, BpeScratch& scratch) const;
  void merge(BpeScratch& scratch) const;

  BpeModelSpec spec_;
  bool byte_level_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<std::string, int32_t> whole_pieces_;  // as encode() gets them; only for ignore_merges
  std::array<int32_t, 256> byte_ids_{};  // of a byte's character or <0xXX> token, -1 if absent
  std::optional<int32_t> unk_id_;
  int32_t max_id_ = -1;
  MergeTable merges_;
};

}  // namespace moge::text
