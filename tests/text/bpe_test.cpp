#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/rng.h"
#include "refusal.h"
#include "temp_dir.h"
#include "text/bpe_tokenizer.h"
#include "text/bpe_trainer.h"
#include "text/golden_lines.h"
#include "text/utf8.h"

namespace moge::text {
namespace {

using nlohmann::json;

std::unique_ptr<BpeTokenizer> load(const std::string& file, const TokenizerConfig& config = {}) {
  return std::make_unique<BpeTokenizer>(parse_tokenizer_json(file, "tokenizer.json"), config,
                                        "tokenizer.json");
}

/// The smallest useful file: letters a b c, merges, everything else switched off.
json small_file() {
  return json::parse(R"({"added_tokens": [{"id": 6, "content": "<eos>", "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5},
              "merges": ["b c", ["a", "bc"], "a b"]}})");
}

std::vector<int32_t> encode(const json& file, std::string_view text, const EncodeOptions& options = {}) {
  return load(file.dump())->encode(text, options);
}

/// The message of the FileError that loading throws, or "(accepted)".
std::string complaint(const std::string& file) {
  return test::refusal([&] { load(file); });
}
std::string complaint(const json& file) {
  return complaint(file.dump());
}

TextSource source(std::vector<std::string> texts) {
  return [texts = std::move(texts), i = size_t{0}](std::string& text) mutable {
    if (i == texts.size()) return false;
    text = texts[i++];
    return true;
  };
}

TEST(Bpe, MergesByRankThenLeftmost) {
  EXPECT_EQ(encode(small_file(), "abc"), (std::vector<int32_t>{5}));  // b c first, then a bc
  EXPECT_EQ(encode(small_file(), "ababc"), (std::vector<int32_t>{3, 5}));
  EXPECT_EQ(encode(small_file(), "cab"), (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(encode(small_file(), ""), (std::vector<int32_t>{}));
  EXPECT_EQ(encode(small_file(), "axc"), (std::vector<int32_t>{0, 2}));  // no unk_token: x is dropped
}

/// A template's markers keep their meaning, a user's words that spell them don't.
TEST(Bpe, ShieldedTextCannotSpellSpecialTokens) {
  json file = small_file();
  file["model"]["vocab"].update({{"<", 7}, {">", 8}, {"e", 9}, {"o", 10}, {"s", 11}, {"y", 12}});
  // A special token inside another, one of a single character, one that is no special token.
  file["added_tokens"].push_back({{"id", 13}, {"content", "eo"}, {"special", true}});
  file["added_tokens"].push_back({{"id", 14}, {"content", "x"}, {"special", true}, {"normalized", true}});
  file["added_tokens"].push_back({{"id", 15}, {"content", "<think>"}, {"special", false}});
  const auto tokenizer = load(file.dump());
  const auto encode = [&](const std::string& text) {
    return tokenizer->encode(text, {.add_special_tokens = false, .shielded = true});
  };
  for (const std::string text : {"abc", "", "a<eo", "<eo<eos>s>", "x<eos>y", "<think>c"}) {
    const std::vector<int32_t> plain =
        tokenizer->encode(text, {.add_special_tokens = false, .parse_special = false});
    std::vector<int32_t> framed = {6};  // "<eos>" of the template
    framed.insert(framed.end(), plain.begin(), plain.end());
    framed.push_back(6);
    EXPECT_EQ(encode("<eos>" + tokenizer->shield(text) + "<eos>"), framed) << text;
  }
  EXPECT_EQ(tokenizer->shield("abc"), "abc");
  // A mark of the user's own cannot reach a marker of the template.
  const std::string mark = "\xEF\xB7\x90";
  EXPECT_EQ(encode(tokenizer->shield("a" + mark) + "<eos>"), (std::vector<int32_t>{0, 6}));
  EXPECT_EQ(tokenizer->shield("<e" + mark + "os>"), tokenizer->shield("<eos>"));
}

TEST(Bpe, LongPieceWithoutBreak) {
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += "abc";
  EXPECT_EQ(encode(small_file(), text), std::vector<int32_t>(200'000, 5));
}

TEST(Bpe, IgnoreMergesPrefersWholePieces) {
  json file = small_file();
  file["model"]["merges"] = json::array();
  EXPECT_EQ(encode(file, "abc"), (std::vector<int32_t>{0, 1, 2}));
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(encode(file, "abc"), (std::vector<int32_t>{5}));
}

TEST(Bpe, SpecialTextIsParsedOnlyOnRequest) {
  EXPECT_EQ(encode(small_file(), "a<eos>b"), (std::vector<int32_t>{0, 6, 1}));
  EXPECT_EQ(encode(small_file(), "a<eos>c", {.parse_special = false}), (std::vector<int32_t>{0, 2}));
}

TEST(Bpe, AddedTokenFlags) {
  json file = small_file();
  file["added_tokens"] = json::array({{{"id", 6}, {"content", "<m>"}, {"lstrip", true}, {"rstrip", true}},
                                      {{"id", 7}, {"content", "<m>x"}},
                                      {{"id", 8}, {"content", "yy"}, {"single_word", true}}});
  for (const int id : {9}) file["model"]["vocab"][" "] = id;
  EXPECT_EQ(encode(file, "a  <m> \n b"), (std::vector<int32_t>{0, 6, 1}));
  EXPECT_EQ(encode(file, "a <m>xb"), (std::vector<int32_t>{0, 9, 7, 1}));  // the longest match wins
  EXPECT_EQ(encode(file, "ayya yy."), (std::vector<int32_t>{0, 0, 9, 8}));
  // A word does not end at a joiner (Persian is written with them).
  EXPECT_EQ(encode(file, "a\u200cyy \u200dyy"), (std::vector<int32_t>{0, 9}));
}

TEST(Bpe, TemplateOrConfigAddsBos) {
  json file = small_file();
  TokenizerConfig config;
  config.bos_token = "<eos>";
  config.eos_token = "<eos>";
  EXPECT_EQ(load(file.dump(), config)->encode("a"), (std::vector<int32_t>{0}));
  config.add_bos_token = true;
  EXPECT_EQ(load(file.dump(), config)->encode("a"), (std::vector<int32_t>{6, 0}));
  EXPECT_EQ(load(file.dump(), config)->special_ids().eos, 6);
  file["post_processor"] = json::parse(R"({"type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "E", "type_id": 0}}],
    "special_tokens": {"E": {"id": "E", "ids": [6, 5], "tokens": ["<eos>", "abc"]}}})");
  EXPECT_EQ(load(file.dump(), config)->encode("a"), (std::vector<int32_t>{0, 6, 5}));
  EXPECT_EQ(load(file.dump(), config)->encode("a", {.add_special_tokens = false}), (std::vector<int32_t>{0}));
}

TEST(Bpe, ByteLevelRoundTripsAnyBytes) {
  const auto tokenizer = load_tokenizer(kGoldenTokenizers / "qwen2");
  const DecodeOptions raw{.keep_invalid_bytes = true};
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(every_byte), raw), every_byte);
  Rng rng(7);
  for (int i = 0; i < 200; ++i) {
    std::string bytes;
    // Mostly lead and continuation bytes, to make broken characters of every kind. NFC leaves these scripts
    // alone.
    for (uint32_t n = rng.next_below(40); n > 0; --n)
      bytes += rng.next_below(2) == 0 ? static_cast<char>(0xB8 + rng.next_below(4))
                                      : static_cast<char>(0xE4 + rng.next_below(3));
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes), raw), bytes);
  }
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a\xE4\xB8z\xFF\xFF")), "a\uFFFDz\uFFFD\uFFFD");
}

TEST(Bpe, MetaspaceTakesItsOwnSpaceAwayOnly) {
  json file = small_file();
  file["decoder"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}};
  file["model"]["vocab"]["\u2581a"] = 7;
  file["added_tokens"].push_back({{"id", 8}, {"content", " x"}});
  const auto tokenizer = load(file.dump());
  EXPECT_EQ(tokenizer->decode({{7, 8, 7}}), "a x a");
  EXPECT_EQ(tokenizer->decode({{8, 7}}), " x a");
}

TEST(Bpe, StreamAddsUpToTheDecode) {
  for (const char* style : {"gpt2", "llama2", "mixed"}) {
    const auto tokenizer = load_tokenizer(kGoldenTokenizers / style);
    Rng rng(11);
    for (int i = 0; i < 100; ++i) {
      std::vector<int32_t> ids;
      for (int n = 0; n < 20; ++n)
        ids.push_back(static_cast<int32_t>(rng.next_below(static_cast<uint32_t>(tokenizer->vocab_size()))));
      StreamDecoder stream(tokenizer->detokenizer());
      std::string text;
      for (const int32_t id : ids) {
        const std::string piece = stream.push(id);
        EXPECT_EQ(utf8_valid_prefix(piece), piece.size());
        text += piece;
      }
      EXPECT_EQ(text + stream.finish(), tokenizer->decode(ids));
    }
  }
}

TEST(Bpe, ManyThreadsAgree) {
  const auto tokenizer = load_tokenizer(kGoldenTokenizers / "llama3");
  std::vector<std::string> lines = golden_lines();
  lines.resize(200);
  std::vector<std::vector<int32_t>> expected;
  for (const std::string& line : lines) expected.push_back(tokenizer->encode(line));
  std::atomic<int> num_wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < lines.size(); ++i)
        if (tokenizer->encode(lines[i]) != expected[i]) ++num_wrong;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
}

TEST(Bpe, ContradictionsAreFileErrors) {
  const auto changed = [](const char* pointer, const json& value) {
    json file = small_file();
    file[json::json_pointer(pointer)] = value;
    return complaint(file);
  };
  EXPECT_EQ(complaint(small_file()), "(accepted)");
  EXPECT_NE(changed("/model/merges/0", "b x").find("\"x\" is not in the vocabulary"), std::string::npos);
  EXPECT_NE(changed("/model/merges/0", "c c").find("\"cc\" is not in the vocabulary"), std::string::npos);
  EXPECT_NE(changed("/model/merges/0", "abc").find("two tokens"), std::string::npos);
  EXPECT_NE(changed("/model/merges/0", json::array({"a"})).find("two tokens"), std::string::npos);
  EXPECT_NE(changed("/model/vocab/b", 0).find("two tokens"), std::string::npos);
  EXPECT_NE(changed("/model/vocab/b", -1).find("token id"), std::string::npos);
  EXPECT_NE(changed("/model/vocab/b", 3'000'000'000).find("token id"), std::string::npos);
  EXPECT_NE(changed("/model/vocab/b", 2'000'000'000).find("has id 2000000000"), std::string::npos);
  EXPECT_NE(changed("/model/vocab/b", "1").find("token id"), std::string::npos);
  EXPECT_NE(changed("/model/vocab", json::object()).find("empty"), std::string::npos);
  EXPECT_NE(changed("/model/unk_token", "?").find("unk_token"), std::string::npos);
  EXPECT_NE(changed("/added_tokens/0/id", 3).find("given to"), std::string::npos);
  EXPECT_NE(changed("/added_tokens/0/id", 1'000'000'000).find("has id"), std::string::npos);
  EXPECT_NE(changed("/added_tokens/0/content", "ab").find("has id 6"), std::string::npos);
  EXPECT_NE(changed("/added_tokens/0", 5).find("JSON object"), std::string::npos);
  EXPECT_NE(changed("/model", nullptr).find("'model' is null"), std::string::npos);
  EXPECT_NE(
      changed("/model/ignore_merge", true).find("unknown key 'ignore_merge'; did you mean 'ignore_merges'?"),
      std::string::npos);
}

TEST(Bpe, UnsupportedComponentsAreNamed) {
  const auto named = [](const char* pointer, const char* value, const char* name) {
    json file = small_file();
    file[json::json_pointer(pointer)] = json::parse(value);
    const std::string message = complaint(file);
    return message.find(name) != std::string::npos && message.find("not supported") != std::string::npos;
  };
  EXPECT_TRUE(named("/model/type", R"("Unigram")", "Unigram"));
  EXPECT_TRUE(named("/model/dropout", "0.1", "dropout"));
  EXPECT_TRUE(named("/model/end_of_word_suffix", R"("</w>")", "end_of_word_suffix"));
  EXPECT_TRUE(named("/normalizer", R"({"type": "BertNormalizer"})", "BertNormalizer"));
  EXPECT_TRUE(named("/pre_tokenizer", R"({"type": "UnicodeScripts"})", "UnicodeScripts"));
  EXPECT_TRUE(named("/post_processor", R"({"type": "BertProcessing"})", "BertProcessing"));
  EXPECT_TRUE(named("/decoder", R"({"type": "WordPiece"})", "WordPiece"));
  const std::string split = R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": )";
  EXPECT_TRUE(named("/pre_tokenizer", (split + R"("[a-z&&[^b]]"}})").c_str(), "[a-z&&[^b]]"));
  json file = small_file();
  file["pre_tokenizer"] = json::parse(split + R"("a(b"}})");
  EXPECT_NE(complaint(file).find("a(b"), std::string::npos);
}

TEST(Bpe, BrokenFilesAreFileErrors) {
  const std::string whole = small_file().dump();
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(complaint(whole.substr(0, size)), "(accepted)") << size;
  EXPECT_NE(complaint(std::string(100'000, '[')).find("nested"), std::string::npos);
  json nested = {{"type", "NFC"}};
  for (int i = 0; i < 25; ++i) nested = {{"type", "Sequence"}, {"normalizers", json::array({nested})}};
  json file = small_file();
  file["normalizer"] = nested;
  EXPECT_NE(complaint(file).find("nested"), std::string::npos);
}

TEST(Bpe, RunawayRegexIsAnError) {
  json file = small_file();
  file["pre_tokenizer"] =
      json::parse(R"({"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "(?:a|aa)+$"}})");
  const auto tokenizer = load(file.dump());
  EXPECT_THROW(tokenizer->encode(std::string(5000, 'a') + "c"), Error);
  EXPECT_EQ(tokenizer->encode("a"), (std::vector<int32_t>{0}));  // and the next text is fine
}

struct TrainCase {
  const char* name;
  BpeTrainOptions options;
};

TEST(BpeTrainer, LearnsWhatTokenizersLearns) {
  const std::vector<TrainCase> cases = {
      {"gpt2", {.style = BpeStyle::kGpt2, .vocab_size = 1000, .special_tokens = {"<|endoftext|>"}}},
      {"llama3",
       {.style = BpeStyle::kLlama3,
        .vocab_size = 1200,
        .special_tokens = {"<|begin_of_text|>", "<|eot_id|>"},
        .bos_token = "<|begin_of_text|>",
        .eos_token = "<|eot_id|>",
        .add_bos_token = true}},
      {"qwen2", {.style = BpeStyle::kQwen2, .vocab_size = 1200}}};
  const std::vector<std::string> lines = golden_lines();
  for (const TrainCase& c : cases) {
    SCOPED_TRACE(c.name);
    const test::TempDir folder;
    train_byte_level_bpe(source(lines), c.options, folder.path());
    const json ours = json::parse(read_text_file(folder.path() / "tokenizer.json"));
    const json theirs = json::parse(read_text_file(kGoldenTokenizers / c.name / "tokenizer.json"));
    EXPECT_EQ(ours["model"], theirs["model"]);
    EXPECT_EQ(ours["normalizer"], theirs["normalizer"]);
    const auto loaded = load_tokenizer(folder.path());
    const auto golden = load_tokenizer(kGoldenTokenizers / c.name);
    for (size_t i = 0; i < lines.size(); i += 50) {
      // The golden qwen2 has more added tokens, which no ordinary line holds.
      if (lines[i].find('<') != std::string::npos) continue;
      EXPECT_EQ(loaded->encode(lines[i]), golden->encode(lines[i]));
    }
    EXPECT_EQ(loaded->special_ids().bos, c.options.bos_token ? std::optional<int32_t>(0) : std::nullopt);
  }
}

TEST(BpeTrainer, UserErrorsAndSmallCorpora) {
  const test::TempDir folder;
  const auto train = [&](const BpeTrainOptions& options, std::vector<std::string> texts) {
    train_byte_level_bpe(source(std::move(texts)), options, folder.path());
  };
  EXPECT_THROW(train({.vocab_size = 255}, {"text"}), UsageError);
  EXPECT_THROW(train({}, {}), UsageError);
  EXPECT_THROW(train({}, {"", ""}), UsageError);
  EXPECT_THROW(train({.special_tokens = {"<a>", "<a>"}}, {"text"}), UsageError);
  EXPECT_THROW(train({.special_tokens = {"<a>"}, .eos_token = "<b>"}, {"text"}), UsageError);
  EXPECT_THROW(train({.add_bos_token = true}, {"text"}), UsageError);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  train({.vocab_size = 1000}, {"aaaa", "\xFF\xFE bytes"});  // stops when no pair is left
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_LT(tokenizer->vocab_size(), 300);
  EXPECT_EQ(tokenizer->encode("aaaa").size(), 1U);
}

}  // namespace
}  // namespace moge::text
