// 10,000 lines in many scripts, against what `tokenizers` and `sentencepiece` make of them
// (tests/golden/make_tokenizer_golden.py).
#include <gtest/gtest.h>

#include "core/files.h"
#include "core/str.h"
#include "text/golden_lines.h"
#include "text/tokenizer.h"

namespace moge::text {
namespace {

uint32_t fnv1a(std::string_view bytes) {
  uint32_t hash = 0x811C9DC5;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x01000193;
  return hash;
}

std::string printed(std::span<const int32_t> ids, const Tokenizer& tokenizer) {
  std::string text;
  for (const int32_t id : ids) text += str(id, ":\"", tokenizer.id_to_piece(id), "\" ");
  return text;
}

struct Style {
  const char* name;
  EncodeOptions encode;
  DecodeOptions decode;
};

class TokenizerGolden : public testing::TestWithParam<Style> {};

TEST_P(TokenizerGolden, EveryLine) {
  const Style& style = GetParam();
  const auto tokenizer = load_tokenizer(kGoldenTokenizers / style.name);
  const std::vector<std::string> lines = golden_lines();
  ASSERT_EQ(lines.size(), 10'000U);
  const std::string file = read_text_file(kGoldenTokenizers / style.name / "expected.bin");
  ASSERT_EQ(file.size(), lines.size() * 8);
  std::string_view expected = file;
  int num_wrong = 0;
  for (const std::string& line : lines) {
    const std::vector<int32_t> ids = tokenizer->encode(line, style.encode);
    const std::string text = tokenizer->decode(ids, style.decode);
    const bool ids_right =
        fnv1a({reinterpret_cast<const char*>(ids.data()), 4 * ids.size()}) == take_u32(expected);
    const bool text_right = fnv1a(text) == take_u32(expected);
    if (ids_right && text_right) continue;
    if (++num_wrong <= 5)
      ADD_FAILURE() << "line " << (&line - lines.data()) << ": " << (ids_right ? "decode" : "ids") << " of \""
                    << line << "\": " << printed(ids, *tokenizer) << "-> \"" << text << '"';
  }
  EXPECT_EQ(num_wrong, 0);
}

// `sentencepiece` itself adds no bos and writes nothing for control tokens.
constexpr EncodeOptions kNoBos{.add_special_tokens = false};
constexpr DecodeOptions kNoControl{.skip_special_tokens = true};
INSTANTIATE_TEST_SUITE_P(Styles, TokenizerGolden,
                         testing::Values(Style{"gpt2", {}, {}}, Style{"llama3", {}, {}},
                                         Style{"qwen2", {}, {}}, Style{"llama2", {}, {}},
                                         Style{"mixed", {}, {}}, Style{"whitespace", {}, {}},
                                         Style{"sentencepiece", kNoBos, kNoControl},
                                         Style{"sentencepiece_trimmed", kNoBos, kNoControl}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace moge::text
