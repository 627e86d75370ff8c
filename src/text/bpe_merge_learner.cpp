#include "text/bpe_merge_learner.h"

#include <algorithm>

namespace moge::text {
namespace {

using Pair = std::pair<int32_t, int32_t>;

struct PairHash {
  size_t operator()(const Pair& pair) const {
    const uint64_t key =
        uint64_t{static_cast<uint32_t>(pair.first)} << 32 | static_cast<uint32_t>(pair.second);
    return (key * 0x9E3779B97F4A7C15U) >> 16;
  }
};

struct Word {
  std::vector<int32_t> tokens;
  int64_t count;
};

struct Candidate {
  Pair pair;
  int64_t count;               // when queued; counts only fall afterwards
  std::vector<int32_t> words;  // indices of the words where it may stand
};

bool less_frequent(const Candidate& a, const Candidate& b) {
  return a.count != b.count ? a.count < b.count : a.pair > b.pair;
}

class Learner {
 public:
  Learner(const WordCounts& words, const std::vector<int32_t>& byte_ids) {
    words_.reserve(words.size());
    for (const auto& [bytes, count] : words) {
      Word& word = words_.emplace_back(Word{{}, count});
      for (const char byte : bytes) word.tokens.push_back(byte_ids[static_cast<uint8_t>(byte)]);
    }
    for (size_t w = 0; w < words_.size(); ++w) {
      const std::vector<int32_t>& tokens = words_[w].tokens;
      for (size_t i = 0; i + 1 < tokens.size(); ++i)
        add({tokens[i], tokens[i + 1]}, words_[w].count, static_cast<int32_t>(w));
    }
    queue_new_pairs();
  }

  /// The most frequent pair, with its count of now. False when no pair is left.
  bool pop(Candidate& best) {
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), less_frequent);
      best = std::move(queue_.back());
      queue_.pop_back();
      const int64_t count = counts_[best.pair];
      if (count == best.count) return true;
      best.count = count;  // merges of other pairs have eaten some: back to its place
      push(std::move(best));
    }
    return false;
  }

  void merge(const Candidate& candidate, int32_t merged) {
    for (const int32_t w : candidate.words) merge_in_word(w, candidate.pair, merged);
    queue_new_pairs();
  }

 private:
  void add(const Pair& pair, int64_t count, int32_t word) {
    counts_[pair] += count;
    std::vector<int32_t>& words = new_pairs_[pair];
    if (words.empty() || words.back() != word) words.push_back(word);
  }
  void push(Candidate candidate) {
    queue_.push_back(std::move(candidate));
    std::push_heap(queue_.begin(), queue_.end(), less_frequent);
  }
  void queue_new_pairs() {
    for (auto& [pair, words] : new_pairs_) {
      const int64_t count = counts_[pair];
      if (count > 0) push({pair, count, std::move(words)});
    }
    new_pairs_.clear();
  }

  void merge_in_word(int32_t w, const Pair& pair, int32_t merged) {
    Word& word = words_[static_cast<size_t>(w)];
    std::vector<int32_t>& tokens = word.tokens;
    size_t size = 0;  // of what is rewritten, in place
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool found = tokens[i] == pair.first && i + 1 < tokens.size() && tokens[i + 1] == pair.second;
      if (!found) {
        tokens[size++] = tokens[i];
        continue;
      }
      if (size > 0) {
        counts_[{tokens[size - 1], pair.first}] -= word.count;
        add({tokens[size - 1], merged}, word.count, w);
      }
      if (i + 2 < tokens.size()) {
        counts_[{pair.second, tokens[i + 2]}] -= word.count;
        add({merged, tokens[i + 2]}, word.count, w);
      }
      tokens[size++] = merged;
      ++i;
    }
    tokens.resize(size);
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, int64_t, PairHash> counts_;
  std::unordered_map<Pair, std::vector<int32_t>, PairHash> new_pairs_;  // made by the current merge
  std::vector<Candidate> queue_;                                        // a heap by less_frequent
};

}  // namespace

LearnedMerges learn_merges(const WordCounts& words, std::vector<std::string> vocab,
                           const std::vector<int32_t>& byte_ids, int32_t vocab_size, int64_t min_frequency) {
  LearnedMerges learned{std::move(vocab), {}};
  std::unordered_map<std::string, int32_t> ids;
  for (const std::string& piece : learned.vocab) ids.emplace(piece, static_cast<int32_t>(ids.size()));
  Learner learner(words, byte_ids);
  Candidate best;
  while (static_cast<int64_t>(learned.vocab.size()) < vocab_size && learner.pop(best)) {
    if (best.count < std::max<int64_t>(min_frequency, 1)) break;
    std::string piece = learned.vocab[static_cast<size_t>(best.pair.first)] +
                        learned.vocab[static_cast<size_t>(best.pair.second)];
    // Two pairs can spell the same token ("ab" + "c", "a" + "bc"): it keeps its first id.
    const auto [found, is_new] = ids.emplace(piece, static_cast<int32_t>(learned.vocab.size()));
    if (is_new) learned.vocab.push_back(std::move(piece));
    learned.merges.push_back(best.pair);
    learner.merge(best, found->second);
  }
  return learned;
}

}  // namespace moge::text
