#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "temp_dir.h"
#include "text/sentencepiece_tokenizer.h"
#include "text/sentencepiece_trainer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"

namespace moge::text {
namespace {

/// A few hundred sentences over a small vocabulary; always the same.
TextSource sentences(int num_lines = 400) {
  return [i = 0, num_lines](std::string& text) mutable {
    static constexpr const char* kWords[] = {"the",     "group", "expert", "routes", "every", "token",
                                             "näher",   "2024",  "to",     "one",    "of",    "which",
                                             "group's", "well",  "专家",   "x_1"};
    if (i == num_lines) return false;
    text.clear();
    for (int w = 0; w < 9; ++w)
      text += std::string(w == 0 ? "" : " ") + kWords[(i * 7 + w * w * 3 + i * w) % 16];
    text += ++i % 3 == 0 ? ".\n" : ".";
    return true;
  };
}

SentencePieceTrainOptions small_options() {
  SentencePieceTrainOptions options;
  options.vocab_size = 360;
  options.special_tokens = {"[unused9]", "[unused10]"};
  return options;
}

class SentencePiece : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<test::TempDir>();
    train_sentencepiece(sentences(), small_options(), folder_->path());
    tokenizer_ = load_tokenizer(folder_->path());
  }
  static void TearDownTestSuite() {
    tokenizer_.reset();
    folder_.reset();
  }
  static std::vector<int32_t> plain(std::string_view text) {
    return tokenizer_->encode(text, {.add_special_tokens = false, .parse_special = false});
  }
  static std::unique_ptr<test::TempDir> folder_;
  static std::unique_ptr<Tokenizer> tokenizer_;
};
std::unique_ptr<test::TempDir> SentencePiece::folder_;
std::unique_ptr<Tokenizer> SentencePiece::tokenizer_;

TEST_F(SentencePiece, ShieldedTextCannotSpellMarkers) {
  const auto encode = [](const std::string& text) {
    return tokenizer_->encode(text, {.add_special_tokens = false, .shielded = true});
  };
  const int32_t open = *tokenizer_->piece_to_id("[unused9]"), close = *tokenizer_->piece_to_id("[unused10]");
  EXPECT_EQ(encode("[unused9]the group[unused10]"),
            tokenizer_->encode("[unused9]the group[unused10]", {.add_special_tokens = false}));
  for (const std::string text : {"the [unused10] of", "[unused10]", "</s>", "[unused9][unused10]<s>"}) {
    const std::vector<int32_t> ids = encode("[unused9]" + tokenizer_->shield(text) + "[unused10]");
    EXPECT_EQ(std::ranges::count(ids, open), 1) << text;
    EXPECT_EQ(std::ranges::count(ids, close), 1) << text;
    for (const int32_t id : ids)
      EXPECT_TRUE(id == open || id == close || !tokenizer_->is_special(id)) << text;
    EXPECT_EQ(tokenizer_->decode(ids), "[unused9]" + text + "[unused10]");
  }
}

TEST_F(SentencePiece, VocabularyAndSpecialIds) {
  EXPECT_EQ(tokenizer_->vocab_size(), 360);
  EXPECT_EQ(tokenizer_->special_ids().bos, 1);
  EXPECT_EQ(tokenizer_->special_ids().eos, 2);
  EXPECT_EQ(tokenizer_->special_ids().pad, std::nullopt);
  EXPECT_EQ(tokenizer_->piece_to_id("[unused9]"), 3);
  EXPECT_TRUE(tokenizer_->is_special(3));
  EXPECT_FALSE(tokenizer_->is_special(300));
  EXPECT_EQ(tokenizer_->piece_to_id("no such piece"), std::nullopt);
  for (int32_t id = 0; id < tokenizer_->vocab_size(); ++id)
    EXPECT_EQ(tokenizer_->piece_to_id(tokenizer_->id_to_piece(id)), id);
  EXPECT_THROW(tokenizer_->id_to_piece(360), RequestError);
  EXPECT_THROW(tokenizer_->decode(std::vector<int32_t>{-1}), RequestError);
}

TEST_F(SentencePiece, RoundTripsValidUtf8) {
  for (const std::string text : {"the group routes every token", "  two  spaces  ", "\ttab\nand newline\r\n",
                                 "中文 专家 🙂👩‍👩‍👧", "", " ", "x_1 2024 12345",
                                 "e\u0301 and \u00e9", "control \x01\x7f end"}) {
    EXPECT_EQ(tokenizer_->decode(plain(text)), text);
  }
  std::string longer;
  for (int i = 0; i < 3000; ++i) longer += i % 17 == 0 ? "  专家" : i % 5 == 0 ? " group" : "xyz";
  EXPECT_EQ(tokenizer_->decode(plain(longer)), longer);
}

TEST_F(SentencePiece, InvalidUtf8BecomesReplacementCharacters) {
  EXPECT_EQ(tokenizer_->decode(plain("a\xff\xc3z")), "a\uFFFD\uFFFDz");
}

TEST_F(SentencePiece, BosAndEosAsTheConfigSays) {
  const auto ids = tokenizer_->encode("the token");
  EXPECT_EQ(ids.front(), 1);
  EXPECT_NE(ids.back(), 2);
  EXPECT_EQ(std::vector<int32_t>(ids.begin() + 1, ids.end()), plain("the token"));
  EXPECT_EQ(tokenizer_->decode(ids, {.skip_special_tokens = true}), "the token");
}

TEST_F(SentencePiece, SpecialTextIsParsedOnlyOnRequest) {
  const std::string text = "[unused9]the token[unused10]</s>";
  const auto parsed = tokenizer_->encode(text, {.add_special_tokens = false});
  EXPECT_EQ(parsed.front(), 3);
  EXPECT_EQ(parsed[parsed.size() - 2], 4);
  EXPECT_EQ(parsed.back(), 2);
  EXPECT_EQ(tokenizer_->decode(parsed), text);
  EXPECT_EQ(tokenizer_->decode(parsed, {.skip_special_tokens = true}), "the token");
  const auto forged = plain(text);
  for (const int32_t id : forged) EXPECT_FALSE(tokenizer_->is_special(id)) << id;
  EXPECT_EQ(tokenizer_->decode(forged), text);
}

/// A message's field of bytes, less than 128 of them.
std::string bytes_field(int number, const std::string& bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string number_field(int number, char value) {
  return {static_cast<char>(number << 3), value};
}
std::string piece_field(const std::string& piece, float score, char type) {
  std::string four(sizeof(score), '\0');
  std::memcpy(four.data(), &score, sizeof(score));
  return bytes_field(1, bytes_field(1, piece) + std::string{2 << 3 | 5} + four + number_field(3, type));
}

// "__" + "_" and "_" + "__" score the same; a unigram model takes one by how its sums were rounded before.
// What sentencepiece 0.1.99 makes of the whole text:
TEST(SentencePieceUnigram, IsEncodedInOnePiece) {
  const std::string model = piece_field("<unk>", 0, 2) + piece_field("<s>", 0, 3) +
                            piece_field("</s>", 0, 3) + piece_field("\u2581", -2.3F, 1) +
                            piece_field("_", -4.1F, 1) + piece_field("__", -6.7F, 1) +
                            piece_field("x", -3.7F, 1) + bytes_field(2, number_field(3, 1)) +  // UNIGRAM
                            bytes_field(3, number_field(3, 1) + number_field(4, 0) + number_field(5, 1));
  const SentencePieceTokenizer tokenizer(model, {}, "model");
  EXPECT_EQ(tokenizer.encode("xxx ___", {.add_special_tokens = false}),
            (std::vector<int32_t>{3, 6, 6, 6, 3, 5, 4}));
}

TEST_F(SentencePiece, StreamEmitsWholeCharacters) {
  const auto ids = plain("ab 🙂 é");
  StreamDecoder stream(tokenizer_->detokenizer());
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = stream.push(id);
    EXPECT_TRUE(piece.empty() || (static_cast<uint8_t>(piece[0]) & 0xC0) != 0x80);
    text += piece;
  }
  EXPECT_EQ(text + stream.finish(), "ab 🙂 é");
  const int32_t lead = *tokenizer_->piece_to_id("<0xF0>");
  EXPECT_EQ(stream.push(lead), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST_F(SentencePiece, ManyThreadsAgree) {
  const auto expected = plain("every token of the group [unused9]");
  std::vector<std::thread> threads;
  std::atomic<int> num_wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i)
        if (plain("every token of the group [unused9]") != expected) ++num_wrong;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
}

TEST_F(SentencePiece, TrainingIsDeterministic) {
  const test::TempDir again;
  train_sentencepiece(sentences(), small_options(), again.path());
  EXPECT_EQ(read_text_file(again.path() / "tokenizer.model"),
            read_text_file(folder_->path() / "tokenizer.model"));
}

TEST_F(SentencePiece, TrainingErrorsAreTheUsers) {
  const test::TempDir folder;
  EXPECT_THROW(train_sentencepiece(sentences(0), small_options(), folder.path()), UsageError);
  SentencePieceTrainOptions huge = small_options();
  huge.vocab_size = 100'000;
  EXPECT_THROW(train_sentencepiece(sentences(20), huge, folder.path()), UsageError);
  SentencePieceTrainOptions small = small_options();
  small.special_tokens = {"<0x41>"};
  EXPECT_THROW(train_sentencepiece(sentences(20), small, folder.path()), UsageError);
  small.special_tokens = std::vector<std::string>(101, "");
  for (size_t i = 0; i < small.special_tokens.size(); ++i) small.special_tokens[i] = str("<", i, ">");
  EXPECT_THROW(train_sentencepiece(sentences(20), small, folder.path()), UsageError);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST_F(SentencePiece, BrokenModelsAreFileErrors) {
  const std::string model = read_text_file(folder_->path() / "tokenizer.model");
  const auto load = [](const std::string& bytes) {
    return std::make_unique<SentencePieceTokenizer>(bytes, TokenizerConfig(), "tokenizer.model");
  };
  EXPECT_NO_THROW(load(model));
  EXPECT_THROW(load(""), FileError);
  EXPECT_THROW(load("not a model at all"), FileError);
  for (size_t size = 0; size < model.size(); size += 97) {
    try {  // a cut between two fields leaves a smaller model, which may even be whole
      load(model.substr(0, size));
    } catch (const FileError&) {
    }
  }
  for (size_t at = 0; at < model.size(); at += 31) {
    std::string flipped = model;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x55);
    try {
      load(flipped)->encode("the group's token");
    } catch (const FileError&) {
    }
  }
}

}  // namespace
}  // namespace moge::text
