#include "text/batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <numeric>

#include "core/error.h"
#include "temp_dir.h"
#include "text/small_corpus.h"

namespace moge::text {
namespace {

class BatchesTest : public testing::Test {
 protected:
  /// Every token is unique: what a batch holds can be traced to its document.
  BatchesTest() {
    Rng rng(5);
    int32_t next = 0;
    std::vector<std::vector<int32_t>> documents(60);
    for (auto& document : documents) {
      document.resize(1 + rng.next_below(40));
      std::iota(document.begin(), document.end(), next);
      next += static_cast<int32_t>(document.size());
    }
    num_tokens_ = next;
    write_corpus(dir_, documents, next, 200);
    corpus_ = std::make_unique<Corpus>(dir_);
    for (uint32_t i = 0; i < 60; ++i) all_.push_back(i);
    for (const auto& document : documents)
      for (size_t i = 0; i < document.size(); ++i) is_last_[document[i]] = i + 1 == document.size();
  }

  /// What holds for every batch.
  void check(const TokenBatch& batch, int64_t num_tokens) const {
    ASSERT_EQ(static_cast<int64_t>(batch.tokens.size()), num_tokens);
    ASSERT_EQ(batch.cu_seqlens.front(), 0);
    ASSERT_EQ(batch.cu_seqlens.back(), num_tokens);
    int64_t num_targets = 0;
    for (size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s) {
      ASSERT_LT(batch.cu_seqlens[s], batch.cu_seqlens[s + 1]);
      for (int32_t i = batch.cu_seqlens[s]; i < batch.cu_seqlens[s + 1]; ++i) {
        EXPECT_EQ(batch.positions[i], i - batch.cu_seqlens[s]);
        if (batch.targets[i] >= 0) {
          EXPECT_EQ(batch.targets[i], batch.tokens[i] + 1);
          EXPECT_FALSE(is_last_.at(batch.tokens[i]));
        }
        if (i > batch.cu_seqlens[s] && batch.targets[i - 1] >= 0) {
          EXPECT_EQ(batch.tokens[i], batch.targets[i - 1]);
        }
        num_targets += batch.targets[i] >= 0;
      }
    }
    EXPECT_EQ(batch.num_targets, num_targets);
  }

  test::TempDir scratch_;
  std::filesystem::path dir_ = scratch_.path() / "corpus";
  std::unique_ptr<Corpus> corpus_;
  std::vector<uint32_t> all_;
  std::map<int32_t, bool> is_last_;
  int32_t num_tokens_ = 0;
};

TEST_F(BatchesTest, AnEpochHasEveryTokenButLessThanARow) {
  TokenBatcher batcher(*corpus_, all_, 16, 7);
  const int64_t rows_per_epoch = num_tokens_ / 16;
  std::map<int32_t, int> seen;
  TokenBatch batch;
  for (int64_t row = 0; row < rows_per_epoch; ++row) {
    batcher.fill(row, 1, batch);
    check(batch, 16);
    for (size_t i = 0; i < batch.tokens.size(); ++i) {
      ++seen[batch.tokens[i]];
      EXPECT_EQ(batch.targets[i] < 0, is_last_.at(batch.tokens[i]));
    }
  }
  EXPECT_EQ(static_cast<int64_t>(seen.size()), 16 * rows_per_epoch);
}

TEST_F(BatchesTest, RowsDependOnSeedAndNumberOnly) {
  TokenBatcher one(*corpus_, all_, 16, 7);
  const int64_t rows_per_epoch = num_tokens_ / 16, num_rows = 3 * rows_per_epoch + 5;
  TokenBatch batch;
  std::vector<int32_t> expected;
  for (int64_t row = 0; row < num_rows; ++row) {
    one.fill(row, 1, batch);
    expected.insert(expected.end(), batch.tokens.begin(), batch.tokens.end());
  }
  // A new batcher, as after a restart, with other batch sizes, across epochs and backwards.
  TokenBatcher other(*corpus_, all_, 16, 7);
  for (const int64_t first : {num_rows - 4, num_rows / 2, rows_per_epoch - 2, int64_t{0}}) {
    other.fill(first, 4, batch);
    check(batch, 64);
    EXPECT_TRUE(std::equal(batch.tokens.begin(), batch.tokens.end(), expected.begin() + first * 16)) << first;
  }
  // Epochs and seeds differ.
  const auto epoch = static_cast<std::ptrdiff_t>(16 * rows_per_epoch);
  EXPECT_FALSE(std::equal(expected.begin(), expected.begin() + epoch, expected.begin() + epoch));
  TokenBatcher(*corpus_, all_, 16, 8).fill(0, 4, batch);
  EXPECT_FALSE(std::equal(batch.tokens.begin(), batch.tokens.end(), expected.begin()));
}

TEST_F(BatchesTest, ShufflesUniformly) {
  // 4 documents of one row each: 24 orders, each expected 4000/24 = 167 times.
  const auto dir = scratch_.path() / "four";
  write_corpus(dir, {{0, 0}, {1, 1}, {2, 2}, {3, 3}}, 4, 100);
  const Corpus corpus(dir);
  std::map<std::vector<int32_t>, int> counts;
  TokenBatch batch;
  TokenBatcher batcher(corpus, {0, 1, 2, 3}, 2, 1);
  for (int64_t epoch = 0; epoch < 4000; ++epoch) {
    batcher.fill(4 * epoch, 4, batch);
    ++counts[batch.tokens];
  }
  ASSERT_EQ(counts.size(), 24U);
  double chi2 = 0;
  for (const auto& [order, count] : counts) chi2 += std::pow(count - 4000.0 / 24, 2) / (4000.0 / 24);
  EXPECT_LT(chi2, 23 + 4 * std::sqrt(2.0 * 23));  // chi-square of 23 degrees: mean 23, variance 46
}

TEST_F(BatchesTest, NeedsARowOfText) {
  EXPECT_THROW(TokenBatcher(*corpus_, all_, 1 << 20, 7), FileError);
  EXPECT_THROW(TokenBatcher(*corpus_, {}, 1, 7), FileError);
  EXPECT_THROW(TokenBatcher(*corpus_, all_, 0, 7), ShapeError);
}

TEST_F(BatchesTest, ReportsACorruptToken) {
  const auto dir = scratch_.path() / "bad";
  write_corpus(dir, {{0, 1, 2}, {3}}, 4, 100);
  {
    std::fstream file(dir / "tokens-00000.bin", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(64);
    file.put(9);
  }
  const Corpus corpus(dir);  // open does not read the tokens
  TokenBatch batch;
  EXPECT_THROW(TokenBatcher(corpus, {0, 1}, 4, 1).fill(0, 1, batch), FileError);
  EXPECT_THROW(corpus.verify(), FileError);
}

TEST_F(BatchesTest, EvaluationSeesEachTargetOnceInOrder) {
  const std::vector<uint32_t> held_out = {3, 10, 11, 40};
  EvalBatches eval(*corpus_, held_out, {.seq_len = 8, .batch_size = 3});
  std::vector<int32_t> expected;
  double bytes = 0;
  for (const uint32_t i : held_out) {
    const TokenSpan document = corpus_->document(i);
    for (int64_t t = 1; t < document.size(); ++t) expected.push_back(static_cast<int32_t>(document[t]));
    bytes += static_cast<double>(corpus_->document_text_bytes(i));
  }
  EXPECT_EQ(eval.num_targets(), static_cast<int64_t>(expected.size()));
  EXPECT_DOUBLE_EQ(eval.num_text_bytes(), bytes);
  std::vector<int32_t> got;
  TokenBatch batch;
  while (eval.next(batch)) {
    check(batch, 24);
    for (const int32_t target : batch.targets)
      if (target >= 0) got.push_back(target);
    for (size_t s = 0; s + 1 < batch.cu_seqlens.size(); ++s)
      EXPECT_LE(batch.cu_seqlens[s + 1] - batch.cu_seqlens[s], 8);
  }
  EXPECT_EQ(got, expected);
}

TEST_F(BatchesTest, EvaluationOfTheFirstTokensOfEach) {
  EvalBatches eval(*corpus_, all_, {.seq_len = 8, .batch_size = 2, .max_tokens_per_document = 5});
  int64_t expected = 0;
  double bytes = 0;
  for (const uint32_t i : all_) {
    expected += std::min<int64_t>(5, corpus_->document_tokens(i)) - 1;
    bytes += 3.0 * static_cast<double>(std::min<int64_t>(5, corpus_->document_tokens(i)));
  }
  TokenBatch batch;
  int64_t got = 0;
  while (eval.next(batch)) got += batch.num_targets;
  EXPECT_EQ(got, expected);
  EXPECT_EQ(eval.num_targets(), expected);
  EXPECT_NEAR(eval.num_text_bytes(), bytes, 1e-9 * bytes);
}

}  // namespace
}  // namespace moge::text
