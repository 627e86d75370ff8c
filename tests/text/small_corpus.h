// Small corpora for tests.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "core/rng.h"
#include "text/corpus.h"

namespace moge::text {

/// `count` documents of 1..max_tokens random ids.
inline std::vector<std::vector<int32_t>> random_documents(int count, int max_tokens, int64_t vocab_size,
                                                          uint64_t seed) {
  Rng rng(seed);
  std::vector<std::vector<int32_t>> documents(static_cast<size_t>(count));
  for (auto& document : documents) {
    document.resize(1 + rng.next_below(static_cast<uint32_t>(max_tokens)));
    for (int32_t& id : document) id = static_cast<int32_t>(rng.next_below(static_cast<uint32_t>(vocab_size)));
  }
  return documents;
}

/// Document i is called "doc i"; its text counts as 3 bytes a token.
inline void write_corpus(const std::filesystem::path& dir, const std::vector<std::vector<int32_t>>& documents,
                         int64_t vocab_size, int64_t shard_tokens) {
  CorpusWriter writer(
      dir, {.vocab_size = vocab_size, .tokenizer_hash = 0xfedcba9876543210U, .shard_tokens = shard_tokens});
  for (size_t i = 0; i < documents.size(); ++i)
    writer.add(documents[i], "doc " + std::to_string(i), 3 * static_cast<int64_t>(documents[i].size()));
  writer.finish();
}

}  // namespace moge::text
