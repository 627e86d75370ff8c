#include "text/batches.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/rng.h"

namespace moge::text {

namespace {

/// Fisher-Yates over 0..n-1.
std::vector<uint32_t> shuffled(int64_t n, Rng rng) {
  std::vector<uint32_t> items(static_cast<size_t>(n));
  std::iota(items.begin(), items.end(), 0U);
  for (size_t i = items.size(); i > 1; --i)
    std::swap(items[i - 1], items[rng.next_below(static_cast<uint32_t>(i))]);
  return items;
}

void clear(TokenBatch& batch, int64_t num_tokens) {
  for (std::vector<int32_t>* array : {&batch.tokens, &batch.targets, &batch.positions}) {
    array->clear();
    array->reserve(static_cast<size_t>(num_tokens));
  }
  batch.cu_seqlens.assign(1, 0);
  batch.num_targets = 0;
}

void end_segment(TokenBatch& batch) {
  batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
}

/// Appends positions [begin, begin + count) of the document as one segment. The last token of
/// [0, num_used) has no target.
void append_segment(const Corpus& corpus, int64_t document, int64_t begin, int64_t count, int64_t num_used,
                    TokenBatch& batch) {
  const TokenSpan tokens = corpus.document(document);
  const auto id = [&](int64_t i) {
    const uint32_t token = tokens[i];
    check<FileError>(token < static_cast<uint64_t>(corpus.vocab_size()), corpus.dir().string(), ": document ",
                     document, ", token ", i, ": expected an id in 0..", corpus.vocab_size() - 1, ", got ",
                     token);
    return static_cast<int32_t>(token);
  };
  for (int64_t i = begin; i < begin + count; ++i) {
    const bool has_target = i + 1 < num_used;
    batch.tokens.push_back(id(i));
    batch.targets.push_back(has_target ? id(i + 1) : -1);
    batch.positions.push_back(static_cast<int32_t>(i - begin));
    batch.num_targets += has_target;
  }
  end_segment(batch);
}

/// Fills up to num_tokens, in segments that no attention window exceeds.
void append_padding(int64_t num_tokens, int64_t seq_len, TokenBatch& batch) {
  while (static_cast<int64_t>(batch.tokens.size()) < num_tokens) {
    const int64_t count = std::min(seq_len, num_tokens - static_cast<int64_t>(batch.tokens.size()));
    for (int64_t i = 0; i < count; ++i) {
      batch.tokens.push_back(0);
      batch.targets.push_back(-1);
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    end_segment(batch);
  }
}

void check_sizes(int64_t seq_len, int64_t num_rows) {
  check<ShapeError>(seq_len > 0 && num_rows > 0 && num_rows <= INT32_MAX / seq_len,
                    "token batch: expected 1..2147483647 tokens, got ", num_rows, " rows of ", seq_len);
}

}  // namespace

TokenBatcher::TokenBatcher(const Corpus& corpus, std::vector<uint32_t> documents, int64_t seq_len,
                           uint64_t seed)
    : corpus_(corpus), documents_(std::move(documents)), seq_len_(seq_len), seed_(seed) {
  check_sizes(seq_len, 1);
  int64_t num_tokens = 0;
  for (const uint32_t document : documents_) num_tokens += corpus.document_tokens(document);
  rows_per_epoch_ = num_tokens / seq_len;
  check<FileError>(rows_per_epoch_ > 0, corpus.dir().string(), ": training on rows of ", seq_len,
                   " tokens needs at least that many, got ", num_tokens, " in ", documents_.size(),
                   " documents: add text, or shorten the rows");
  check<FileError>(rows_per_epoch_ <= UINT32_MAX, corpus.dir().string(), ": expected at most ", UINT32_MAX,
                   " rows an epoch, got ", rows_per_epoch_);
}

void TokenBatcher::start_epoch(int64_t epoch) {
  const auto stream = 2 * static_cast<uint64_t>(epoch);
  order_ = shuffled(static_cast<int64_t>(documents_.size()), Rng(seed_, stream));
  document_begin_.assign(1, 0);
  for (uint32_t& item : order_) {
    item = documents_[item];
    document_begin_.push_back(document_begin_.back() + corpus_.document_tokens(item));
  }
  row_order_ = shuffled(rows_per_epoch_, Rng(seed_, stream + 1));
  epoch_ = epoch;
}

void TokenBatcher::fill(int64_t first_row, int64_t num_rows, TokenBatch& batch) {
  check_sizes(seq_len_, num_rows);
  dcheck(first_row >= 0, "row ", first_row);
  clear(batch, num_rows * seq_len_);
  for (int64_t row = first_row; row < first_row + num_rows; ++row) {
    if (row / rows_per_epoch_ != epoch_) start_epoch(row / rows_per_epoch_);
    int64_t at = row_order_[row % rows_per_epoch_] * seq_len_;
    const int64_t end = at + seq_len_;
    auto next = std::upper_bound(document_begin_.begin(), document_begin_.end(), at);
    for (; at < end; ++next) {
      const int64_t document = order_[next - document_begin_.begin() - 1];
      const int64_t count = std::min(end, *next) - at;
      append_segment(corpus_, document, at - *std::prev(next), count, corpus_.document_tokens(document),
                     batch);
      at += count;
    }
  }
}

EvalBatches::EvalBatches(const Corpus& corpus, std::vector<uint32_t> documents, const Options& options)
    : corpus_(corpus), documents_(std::move(documents)), options_(options) {
  check_sizes(options.seq_len, options.batch_size);
  for (const uint32_t document : documents_) {
    const int64_t used = used_tokens(document);
    num_targets_ += used - 1;
    num_text_bytes_ += static_cast<double>(corpus.document_text_bytes(document)) * static_cast<double>(used) /
                       static_cast<double>(corpus.document_tokens(document));
  }
}

int64_t EvalBatches::used_tokens(int64_t document) const {
  const int64_t all = corpus_.document_tokens(document);
  return options_.max_tokens_per_document > 0 ? std::min(all, options_.max_tokens_per_document) : all;
}

bool EvalBatches::next(TokenBatch& batch) {
  const int64_t capacity = options_.batch_size * options_.seq_len;
  clear(batch, capacity);
  for (; document_ < documents_.size(); ++document_, window_begin_ = 0) {
    const int64_t document = documents_[document_];
    // The last token is a target only: nothing follows it.
    const int64_t num_inputs = used_tokens(document) - 1;
    while (window_begin_ < num_inputs) {
      const int64_t begin = window_begin_;
      const int64_t count = std::min(options_.seq_len, num_inputs - begin);
      if (static_cast<int64_t>(batch.tokens.size()) + count > capacity) {
        append_padding(capacity, options_.seq_len, batch);
        return true;
      }
      append_segment(corpus_, document, begin, count, num_inputs + 1, batch);
      window_begin_ += count;
    }
  }
  if (batch.tokens.empty()) return false;
  append_padding(capacity, options_.seq_len, batch);
  return true;
}

}  // namespace moge::text
