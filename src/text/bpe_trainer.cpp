#include "text/bpe_trainer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "text/bpe_merge_learner.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/trainer_checks.h"
#include "text/utf8.h"

namespace moge::text {
namespace {

using nlohmann::ordered_json;

ordered_json byte_level_json(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", use_regex}};
}

ordered_json pre_tokenizer_json(BpeStyle style) {
  if (style == BpeStyle::kGpt2) return byte_level_json(true);
  const ordered_json split = {
      {"type", "Split"},
      {"pattern", {{"Regex", style == BpeStyle::kLlama3 ? kLlama3Pattern : kQwen2Pattern}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split, byte_level_json(false)})}};
}

ordered_json normalizer_json(BpeStyle style) {
  if (style == BpeStyle::kQwen2) return {{"type", "NFC"}};
  return nullptr;
}

ordered_json post_processor_json(const BpeTrainOptions& options, int32_t bos_id) {
  if (!options.add_bos_token) return byte_level_json(true);
  const std::string& bos = *options.bos_token;
  const auto special = [&](int type_id) -> ordered_json {
    return {{"SpecialToken", {{"id", bos}, {"type_id", type_id}}}};
  };
  const auto sequence = [](const char* id, int type_id) -> ordered_json {
    return {{"Sequence", {{"id", id}, {"type_id", type_id}}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", ordered_json::array({special(0), sequence("A", 0)})},
          {"pair", ordered_json::array({special(0), sequence("A", 0), special(1), sequence("B", 1)})},
          {"special_tokens", {{bos, {{"id", bos}, {"ids", {bos_id}}, {"tokens", {bos}}}}}}};
}

/// Appends without the search for the key that ordered_json's own insertion makes, which is linear.
void append(ordered_json::object_t& object, const std::string& key, ordered_json value) {
  object.Container::emplace_back(key, std::move(value));
}

ordered_json model_json(const LearnedMerges& learned, BpeStyle style) {
  ordered_json::object_t vocab;
  for (size_t id = 0; id < learned.vocab.size(); ++id) append(vocab, learned.vocab[id], id);
  ordered_json merges = ordered_json::array();
  for (const auto& [left, right] : learned.merges)
    merges.push_back({learned.vocab[static_cast<size_t>(left)], learned.vocab[static_cast<size_t>(right)]});
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", style == BpeStyle::kLlama3},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

ordered_json added_tokens_json(const std::vector<std::string>& special_tokens) {
  ordered_json tokens = ordered_json::array();
  for (const std::string& content : special_tokens)
    tokens.push_back({{"id", tokens.size()},
                      {"content", content},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", true}});
  return tokens;
}

std::string tokenizer_config(const BpeTrainOptions& options) {
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, const std::optional<std::string>& token) {
    if (token) config[key] = *token;
  };
  name("bos_token", options.bos_token);
  name("eos_token", options.eos_token);
  name("pad_token", options.pad_token);
  return config.dump(2) + '\n';
}

/// The id of a token that the options name among the special ones.
std::optional<int32_t> special_id(const BpeTrainOptions& options, const std::optional<std::string>& token,
                                  const char* key) {
  if (!token) return std::nullopt;
  const auto found = std::find(options.special_tokens.begin(), options.special_tokens.end(), *token);
  check<UsageError>(found != options.special_tokens.end(), key, " \"", *token,
                    "\" is not one of special_tokens");
  return static_cast<int32_t>(found - options.special_tokens.begin());
}

/// The bytes' characters in their order, which is that of the ids behind the special tokens', each with its
/// byte.
std::vector<std::pair<std::string, size_t>> byte_pieces() {
  std::vector<std::pair<char32_t, size_t>> alphabet;
  for (size_t byte = 0; byte < 256; ++byte) alphabet.emplace_back(byte_level_alphabet()[byte], byte);
  std::sort(alphabet.begin(), alphabet.end());
  std::vector<std::pair<std::string, size_t>> pieces;
  for (const auto& [character, byte] : alphabet) append_utf8(character, pieces.emplace_back("", byte).first);
  return pieces;
}

void check_options(const BpeTrainOptions& options) {
  std::vector<std::string> bytes;
  for (const auto& [piece, byte] : byte_pieces()) bytes.push_back(piece);
  check_vocabulary_options(options.vocab_size, options.special_tokens, bytes);
  check<UsageError>(!options.add_bos_token || options.bos_token, "add_bos_token needs a bos_token");
}

WordCounts count_words(const TextSource& texts, BpeStyle style) {
  const ordered_json normalizer_spec = normalizer_json(style);
  const Normalizer normalizer =
      normalizer_spec.is_null() ? Normalizer() : Normalizer(normalizer_spec, "normalizer");
  const PreTokenizer pre_tokenizer(nlohmann::json(pre_tokenizer_json(style)), "pre_tokenizer");
  WordCounts words;
  RegexScratch scratch;
  Pieces pieces;
  std::string text;
  std::string normalized;
  while (texts(text)) {
    for_each_utf8_run(text, [&](std::string_view run, bool valid) {
      if (!valid) {
        ++words[std::string(run)];
        return;
      }
      normalized = run;
      normalizer.apply(normalized, scratch);
      pieces.views.assign(1, normalized);
      pieces.owned.clear();
      pre_tokenizer.apply(pieces, scratch);
      for (const std::string_view piece : pieces.views) ++words[std::string(piece)];
    });
  }
  return words;
}

}  // namespace

void train_byte_level_bpe(const TextSource& texts, const BpeTrainOptions& options,
                          const std::filesystem::path& model_dir) {
  check_options(options);
  const std::optional<int32_t> bos_id = special_id(options, options.bos_token, "bos_token");
  special_id(options, options.eos_token, "eos_token");
  special_id(options, options.pad_token, "pad_token");
  AtomicDirectory directory(model_dir);
  const WordCounts words = count_words(texts, options.style);
  check<UsageError>(!words.empty(), "cannot train a tokenizer: the corpus is empty");

  // Ids: special tokens, then the bytes in the order of their characters.
  std::vector<std::string> vocab = options.special_tokens;
  std::vector<int32_t> byte_ids(256);
  for (const auto& [piece, byte] : byte_pieces()) {
    byte_ids[byte] = static_cast<int32_t>(vocab.size());
    vocab.push_back(piece);
  }
  const LearnedMerges learned =
      learn_merges(words, std::move(vocab), byte_ids, options.vocab_size, options.min_frequency);

  ordered_json file = {{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added_tokens_json(options.special_tokens)},
                       {"normalizer", normalizer_json(options.style)},
                       {"pre_tokenizer", pre_tokenizer_json(options.style)},
                       {"post_processor", post_processor_json(options, bos_id.value_or(0))},
                       {"decoder", byte_level_json(true)},
                       {"model", model_json(learned, options.style)}};
  atomic_write_file(directory.path() / "tokenizer.json", file.dump(1) + '\n');
  atomic_write_file(directory.path() / "tokenizer_config.json", tokenizer_config(options));
  directory.commit();
}

}  // namespace moge::text
