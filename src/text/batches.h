// Rows of tokens for training and evaluation, cut from a corpus.
//
// Training order, as Megatron's: an epoch shuffles the documents, joins them, cuts the join into rows of
// seq_len positions and shuffles the rows (so that a batch mixes documents even where these are books). Both
// shuffles are a pure function of (seed, epoch): row r of the run is always the same, whatever the batch
// size, the thread count or the step that training resumed from. The resume state is the number of rows used.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "text/corpus.h"

namespace moge::text {

/// T = rows * seq_len positions, flattened. A segment is a stretch of one document of at most seq_len tokens:
/// attention stays inside it, and positions count from its start.
struct TokenBatch {
  std::vector<int32_t> tokens;      // [T]
  std::vector<int32_t> targets;     // [T] the next token of the document; -1 at its last one and in padding
  std::vector<int32_t> positions;   // [T]
  std::vector<int32_t> cu_seqlens;  // [segments + 1] start of each segment, then T
  int64_t num_targets = 0;          // targets that are not -1
};

/// The endless training order over some documents of a corpus. The corpus must outlive it. One thread at a
/// time (it caches the current epoch's order).
class TokenBatcher {
 public:
  /// FileError unless the documents have at least one row of tokens.
  TokenBatcher(const Corpus& corpus, std::vector<uint32_t> documents, int64_t seq_len, uint64_t seed);

  /// Rows [first_row, first_row + num_rows) of the run, counted from its start through all epochs. FileError
  /// for a token id outside the vocabulary (a corrupt shard).
  void fill(int64_t first_row, int64_t num_rows, TokenBatch& batch);

 private:
  void start_epoch(int64_t epoch);

  const Corpus& corpus_;
  std::vector<uint32_t> documents_;
  int64_t seq_len_;
  uint64_t seed_;
  /// What is left at an epoch's end, less than a row, is dropped: another part each epoch.
  int64_t rows_per_epoch_;
  int64_t epoch_ = -1;                   ///< the one that the next three hold
  std::vector<uint32_t> order_;          // [N] documents, shuffled
  std::vector<int64_t> document_begin_;  // [N + 1] first position of each in the join
  std::vector<uint32_t> row_order_;      // [rows_per_epoch]
};

/// Each target of the documents once, in order: every document is cut into windows of at most seq_len
/// positions, a window is a segment, and as many whole ones as fit make a batch. The rest is padding: token
/// 0, target -1, in segments of its own.
class EvalBatches {
 public:
  struct Options {
    int64_t seq_len = 0;
    int64_t batch_size = 1;
    /// Only the first tokens of each document, for a quick look at many; 0: all.
    int64_t max_tokens_per_document = 0;
  };
  EvalBatches(const Corpus& corpus, std::vector<uint32_t> documents, const Options& options);

  /// The next batch of batch_size * seq_len positions; false at the end.
  bool next(TokenBatch& batch);

  int64_t num_targets() const { return num_targets_; }
  /// Bytes of text that these targets stand for: bits per byte = sum of losses / ln 2 / this. Exact for whole
  /// documents, the document's average for cut ones.
  double num_text_bytes() const { return num_text_bytes_; }

 private:
  int64_t used_tokens(int64_t document) const;

  const Corpus& corpus_;
  std::vector<uint32_t> documents_;
  Options options_;
  size_t document_ = 0;
  int64_t window_begin_ = 0;
  int64_t num_targets_ = 0;
  double num_text_bytes_ = 0;
};

}  // namespace moge::text
