#include "engine/text_stream.h"

#include <gtest/gtest.h>

namespace moge::engine {
namespace {

/// One token for each byte, and 256, which is special.
class Bytes : public text::Tokenizer {
 public:
  using FirstSpace = text::Detokenizer::FirstSpace;
  explicit Bytes(FirstSpace first_space = FirstSpace::kKeep) {
    std::vector<text::Detokenizer::Token> tokens;
    for (int byte = 0; byte < 256; ++byte)
      tokens.push_back({.bytes = {static_cast<char>(byte)}, .leading_space = byte == ' '});
    tokens.push_back({.bytes = "<eos>", .special = true});
    detokenizer_ =
        text::Detokenizer(std::move(tokens), first_space, text::Detokenizer::InvalidUtf8::kPerSequence);
  }
  std::vector<int32_t> encode(std::string_view text, const text::EncodeOptions&) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  int32_t vocab_size() const override { return 257; }
  std::string id_to_piece(int32_t id) const override { return detokenizer_.token(id).bytes; }
  std::optional<int32_t> piece_to_id(std::string_view) const override { return std::nullopt; }
  const text::Detokenizer& detokenizer() const override { return detokenizer_; }

 private:
  size_t special_at(std::string_view) const override { return 0; }  // encode() finds none
  text::Detokenizer detokenizer_;
};

struct Pieces {
  std::vector<std::string> pieces;  ///< of each token, then of finish()
  bool stopped;
};

Pieces stream(const std::string& text, const std::vector<std::string>& stops) {
  const Bytes tokenizer;
  TextStream stream(tokenizer, stops);
  Pieces out;
  for (const int32_t id : tokenizer.encode(text, {})) out.pieces.push_back(stream.push(id));
  out.pieces.push_back(stream.finish());
  out.stopped = stream.stopped();
  return out;
}

std::string whole(const Pieces& p) {
  std::string text;
  for (const std::string& piece : p.pieces) text += piece;
  return text;
}

using Strings = std::vector<std::string>;

TEST(TextStream, ReleasesWholeCharactersOnly) {
  EXPECT_EQ(stream("aé", {}).pieces, (Strings{"a", "", "é", ""}));
  EXPECT_EQ(stream("a\xC3", {}).pieces, (Strings{"a", "", "\uFFFD"}));
}

TEST(TextStream, KeepsTheSpaceOfAContinuation) {
  const Bytes tokenizer(Bytes::FirstSpace::kStripOne);
  const std::vector<int32_t> prompt = tokenizer.encode(" She had", {});
  EXPECT_EQ(TextStream(tokenizer, {}).push(' '), "");
  EXPECT_EQ(TextStream(tokenizer, {}, prompt).push(' '), " ");
}

TEST(TextStream, EndsBeforeAStopString) {
  const Pieces p = stream("one\n\ntwo", {"\n\n"});
  EXPECT_TRUE(p.stopped);
  EXPECT_EQ(p.pieces, (Strings{"o", "n", "e", "", "", "", "", "", ""}));
}

TEST(TextStream, HoldsBackOnlyWhatMayBecomeAStopString) {
  EXPECT_EQ(stream("xaab", {"aac"}).pieces, (Strings{"x", "", "", "aab", ""}));
  EXPECT_EQ(stream("aaac", {"aac"}).pieces, (Strings{"", "", "a", "", ""}));
  EXPECT_EQ(stream("xaa", {"aac"}).pieces, (Strings{"x", "", "", "aa"}));
  EXPECT_FALSE(stream("xaa", {"aac"}).stopped);
}

TEST(TextStream, TakesTheFirstOfSeveral) {
  EXPECT_EQ(whole(stream("abcdef", {"ef", "cd"})), "ab");
  EXPECT_EQ(whole(stream("abcdef", {"", "zz"})), "abcdef");
}

TEST(TextStream, LeavesSpecialTokensOut) {
  const Bytes tokenizer;
  TextStream stream(tokenizer, {});
  EXPECT_EQ(stream.push('a') + stream.push(256) + stream.push('b') + stream.finish(), "ab");
}

TEST(TextStream, LeavesOutIdsWithoutAPiece) {
  const Bytes tokenizer;
  TextStream stream(tokenizer, {"ab"});
  std::string text;
  for (const int32_t id : {int32_t{'x'}, int32_t{'a'}, 257, int32_t{'b'}}) text += stream.push(id);
  EXPECT_EQ(text, "x");
  EXPECT_TRUE(stream.stopped());
}

}  // namespace
}  // namespace moge::engine
