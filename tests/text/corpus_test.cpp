#include "text/corpus.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "refusal.h"
#include "temp_dir.h"
#include "text/small_corpus.h"

namespace moge::text {
namespace {

namespace fs = std::filesystem;

/// Changes some bytes of a file.
void patch(const fs::path& path, int64_t offset, std::string_view bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(offset);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

class CorpusTest : public testing::Test {
 protected:
  test::TempDir scratch_;
  fs::path dir_ = scratch_.path() / "corpus";
};

TEST_F(CorpusTest, RoundTripsInBothWidthsAcrossShards) {
  for (const int64_t vocab_size : {65536, 65537}) {
    const auto documents = random_documents(40, 30, vocab_size, 1);
    write_corpus(dir_, documents, vocab_size, /*shard_tokens=*/100);
    const Corpus corpus(dir_);
    corpus.verify();
    EXPECT_EQ(corpus.vocab_size(), vocab_size);
    EXPECT_EQ(corpus.tokenizer_hash(), 0xfedcba9876543210U);
    ASSERT_EQ(corpus.num_documents(), 40);
    EXPECT_TRUE(fs::exists(dir_ / "tokens-00003.bin"));
    int64_t num_tokens = 0;
    for (size_t i = 0; i < documents.size(); ++i) {
      const TokenSpan got = corpus.document(static_cast<int64_t>(i));
      ASSERT_EQ(got.size(), static_cast<int64_t>(documents[i].size()));
      for (int64_t t = 0; t < got.size(); ++t) EXPECT_EQ(got[t], static_cast<uint32_t>(documents[i][t]));
      EXPECT_EQ(corpus.document_text_bytes(static_cast<int64_t>(i)), 3 * got.size());
      num_tokens += got.size();
    }
    EXPECT_EQ(corpus.num_tokens(), num_tokens);
    EXPECT_EQ(corpus.num_text_bytes(), 3 * num_tokens);
    fs::remove_all(dir_);
  }
}

TEST_F(CorpusTest, ADocumentLongerThanAShardStaysWhole) {
  write_corpus(dir_, {{1, 2}, std::vector<int32_t>(500, 7), {3}}, 100, 100);
  const Corpus corpus(dir_);
  EXPECT_EQ(corpus.document(1).size(), 500);
  EXPECT_EQ(corpus.document(2)[0], 3U);
}

TEST_F(CorpusTest, WritesAllOrNothing) {
  {
    CorpusWriter dropped(dir_, {.vocab_size = 10});
    dropped.add(std::vector<int32_t>{1, 2}, "a", 2);
    EXPECT_THROW(dropped.add(std::vector<int32_t>{10}, "b", 1), Error);
    EXPECT_THROW(dropped.add(std::vector<int32_t>{-1}, "b", 1), Error);
  }
  EXPECT_NE(
      test::refusal([&] { CorpusWriter(dir_, {.vocab_size = 10}).finish(); }).find("at least one document"),
      std::string::npos);
  EXPECT_TRUE(fs::is_empty(scratch_.path()));

  // A full disk, by way of a file size limit.
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit limit{1 << 20, old_limit.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string full = test::refusal([&] {
    CorpusWriter writer(dir_, {.vocab_size = 10});
    for (int i = 0; i < 20; ++i) writer.add(std::vector<int32_t>(100'000, 1), "a", 1);
    writer.finish();
  });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  EXPECT_NE(full.find("tokens-00000.bin: File too large"), std::string::npos) << full;
  EXPECT_TRUE(fs::is_empty(scratch_.path()));
  EXPECT_THROW(CorpusWriter("/proc/corpus", {.vocab_size = 10}), FileError);
}

TEST_F(CorpusTest, RefusesBrokenFiles) {
  const std::vector<std::vector<int32_t>> documents = {{1, 2, 3}, {4, 5}, {6}};
  const auto broken = [&](const std::function<void()>& damage) {
    fs::remove_all(dir_);
    write_corpus(dir_, documents, 10, 100);
    damage();
    return test::refusal([&] { Corpus(dir_).verify(); });
  };
  const fs::path tokens = dir_ / "tokens-00000.bin";
  const fs::path index = dir_ / "documents.bin";
  const auto expect = [&](const std::string& part, const std::function<void()>& damage) {
    const std::string message = broken(damage);
    EXPECT_NE(message.find(part), std::string::npos) << "expected: " << part << "\ngot: " << message;
  };
  EXPECT_EQ(broken([] {}), "(accepted)");
  expect("corpus.json: No such file", [&] { fs::remove(dir_ / "corpus.json"); });
  expect("tokens-00000.bin: No such file", [&] { fs::remove(tokens); });
  expect("expected a header of 64 bytes, got 10", [&] { fs::resize_file(tokens, 10); });
  expect("expected 76 bytes, got 74 (truncated?)", [&] { fs::resize_file(tokens, 74); });
  expect("wrong magic", [&] { patch(tokens, 0, "X"); });
  expect("expected version 1, got 9", [&] { patch(tokens, 8, "\x09"); });
  expect("disagrees with corpus.json", [&] { patch(tokens, 16, "\x07"); });
  expect("corrupt: expected xxHash64", [&] { patch(tokens, 64, "\x07"); });
  expect("corrupt: expected xxHash64", [&] { patch(index, 64 + 8, "\x02"); });
  expect("shards[0]: xxh64", [&] {
    std::string json = read_text_file(dir_ / "corpus.json");
    json.replace(json.rfind("\"xxh64\": \"") + 10, 1, "g");
    atomic_write_file(dir_ / "corpus.json", json);
  });
  expect("not a moge",
         [&] { atomic_write_file(dir_ / "corpus.json", R"({"format": "not a moge corpus"})"); });
  expect("'shards'", [&] {
    auto json = nlohmann::json::parse(read_text_file(dir_ / "corpus.json"));
    json.erase("shards");
    atomic_write_file(dir_ / "corpus.json", json.dump());
  });
  expect("token_bytes", [&] {
    auto json = nlohmann::json::parse(read_text_file(dir_ / "corpus.json"));
    json["token_bytes"] = 4;
    atomic_write_file(dir_ / "corpus.json", json.dump());
  });
}

// Whoever can write a wrong offset can write the right checksum.
TEST_F(CorpusTest, RefusesHostileOffsetsWithRightChecksums) {
  const auto with_offsets = [&](std::vector<uint64_t> offsets) {
    fs::remove_all(dir_);
    write_corpus(dir_, {{1, 2, 3}, {4, 5}}, 10, 3);  // two shards
    std::string index = read_text_file(dir_ / "documents.bin");
    std::memcpy(index.data() + 64, offsets.data(), 24);
    atomic_write_file(dir_ / "documents.bin", index);
    auto json = nlohmann::json::parse(read_text_file(dir_ / "corpus.json"));
    char hex[17];
    std::snprintf(hex, sizeof hex, "%016lx", corpus_hash(std::string_view(index).substr(64)));
    json["documents_xxh64"] = hex;
    atomic_write_file(dir_ / "corpus.json", json.dump());
    return test::refusal([&] { const Corpus corpus(dir_); });
  };
  EXPECT_EQ(with_offsets({0, 3, 5}), "(accepted)");
  EXPECT_NE(with_offsets({0, 3, 6}).find("offsets"), std::string::npos);
  EXPECT_NE(with_offsets({1, 3, 5}).find("offsets"), std::string::npos);
  EXPECT_NE(with_offsets({0, 4, 5}).find("crosses the end of tokens-00000.bin"), std::string::npos);
  EXPECT_NE(with_offsets({0, uint64_t{1} << 63, 5}).find("ascending"), std::string::npos);
  EXPECT_NE(with_offsets({0, 0, 5}).find("ascending"), std::string::npos);
}

TEST_F(CorpusTest, SplitsByNameWhateverTheOrder) {
  const auto held_out_names = [&](const std::vector<int>& order) {
    fs::remove_all(dir_);
    CorpusWriter writer(dir_, {.vocab_size = 1000});
    for (const int i : order) writer.add(std::vector<int32_t>{i}, "book " + std::to_string(i), 1);
    writer.finish();
    const Corpus corpus(dir_);
    const CorpusSplit split = split_corpus(corpus, 10);
    EXPECT_EQ(split.train.size() + split.held_out.size(), order.size());
    std::vector<uint32_t> names;
    for (const uint32_t i : split.held_out) names.push_back(corpus.document(i)[0]);
    std::sort(names.begin(), names.end());
    return names;
  };
  std::vector<int> order(300);
  for (int i = 0; i < 300; ++i) order[i] = i;
  const auto names = held_out_names(order);
  EXPECT_GT(names.size(), 10U);  // 30 expected, standard deviation 5.2
  EXPECT_LT(names.size(), 50U);
  std::reverse(order.begin(), order.end());
  EXPECT_EQ(held_out_names(order), names);
}

TEST_F(CorpusTest, SplitsOfTinyCorpora) {
  write_corpus(dir_, {{1, 2}, {3}}, 10, 100);
  const CorpusSplit split = split_corpus(Corpus(dir_), 1'000'000);
  EXPECT_EQ(split.train.size(), 1U);
  EXPECT_EQ(split.held_out.size(), 1U);
  EXPECT_EQ(split_corpus(Corpus(dir_), 0).train.size(), 2U);
  EXPECT_THROW(split_corpus(Corpus(dir_), 1), UsageError);
  fs::remove_all(dir_);
  write_corpus(dir_, {{1, 2}}, 10, 100);
  const std::string message = test::refusal([&] { split_corpus(Corpus(dir_), 50); });
  EXPECT_NE(message.find("at least 2 documents"), std::string::npos) << message;
  EXPECT_TRUE(message.ends_with("cut the text into several files")) << message;
}

}  // namespace
}  // namespace moge::text
