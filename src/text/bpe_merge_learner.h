// Learns a BPE vocabulary: again and again the most frequent pair of neighbouring tokens becomes a token.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace moge::text {

/// Occurrences of each pre-token, as bytes.
using WordCounts = std::unordered_map<std::string, int64_t>;

struct LearnedMerges {
  std::vector<std::string> vocab;                   // by id, in the byte-level alphabet
  std::vector<std::pair<int32_t, int32_t>> merges;  // ids, by rank
};

/// Starts from `vocab` (special tokens and the 256 byte characters; byte_ids has each byte's id),
/// and merges until there are vocab_size tokens or no pair occurs min_frequency times (or at all).
/// Ties go to the pair with the smaller ids. Same result as Hugging Face's BpeTrainer, in one thread, in time
/// proportional to the changes that the merges make.
LearnedMerges learn_merges(const WordCounts& words, std::vector<std::string> vocab,
                           const std::vector<int32_t>& byte_ids, int32_t vocab_size, int64_t min_frequency);

}  // namespace moge::text
