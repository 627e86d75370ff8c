#include "text/sentencepiece_trainer.h"

#include <sentencepiece_trainer.h>

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/files.h"
#include "text/byte_level.h"
#include "text/trainer_checks.h"

namespace moge::text {
namespace {

// The library drops longer sentences; ours are cut into parts of this size at a space instead.
constexpr size_t kMaxSentenceBytes = 4096;

/// The texts, cut to sentences.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const TextSource& texts) : texts_(texts) { Next(); }

  bool done() const override { return done_; }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }
  void Next() override {
    while (rest_.empty()) {
      if (!texts_(text_)) {
        done_ = true;
        return;
      }
      rest_ = text_;
    }
    size_t end = rest_.size();
    if (end > kMaxSentenceBytes) {
      end = rest_.rfind(' ', kMaxSentenceBytes);
      if (end == std::string_view::npos || end == 0) {  // no space: between two characters
        end = kMaxSentenceBytes;
        while (end > 1 && (static_cast<uint8_t>(rest_[end]) & 0xC0) == 0x80) --end;
      }
    }
    sentence_ = rest_.substr(0, end);
    // The space of the cut goes: the library puts one before every sentence.
    const bool at_space = end < rest_.size() && rest_[end] == ' ';
    rest_.remove_prefix(end + (at_space ? 1 : 0));
  }

 private:
  const TextSource& texts_;
  std::string text_;
  std::string_view rest_;
  std::string sentence_;
  bool done_ = false;
};

/// The library reads a list as comma separated values, with CSV quotes.
std::string csv(const std::vector<std::string>& values) {
  std::string joined;
  for (const std::string& value : values) {
    if (!joined.empty()) joined += ',';
    joined += '"';
    for (const char c : value) joined.append(c == '"' ? 2 : 1, c);
    joined += '"';
  }
  return joined;
}

/// The pieces that every model has, and the one that stands for a space.
std::vector<std::string> own_pieces() {
  std::vector<std::string> pieces = {"<unk>", "<s>", "</s>", "\u2581"};
  for (int byte = 0; byte < 256; ++byte) pieces.push_back(byte_token(byte));
  return pieces;
}

/// The library's reason without the place in its source ("./src/trainer_interface.cc(580) [condition] ") and
/// without advice on options that are not ours.
std::string reason(std::string_view message) {
  const auto number_after = [&](std::string_view words) {
    const size_t at = message.find(words);
    if (at == std::string_view::npos) return std::string();
    const std::string_view rest = message.substr(at + words.size());
    return std::string(rest.substr(0, rest.find_first_not_of("0123456789")));
  };
  const std::string most = number_after("Please set it to a value <= ");
  if (!most.empty()) return str("the texts have pieces for at most ", most);
  // "Vocabulary size is smaller than required_chars. 280 vs 287."
  const size_t too_few = message.find("smaller than required_chars");
  if (too_few != std::string_view::npos) {
    const std::string least = number_after(" vs ");
    return str("the texts' characters, the bytes and the special tokens need ",
               least.empty() ? "more" : "at least " + least);
  }
  const size_t condition_end = message.find("] ");
  if (condition_end != std::string_view::npos) message.remove_prefix(condition_end + 2);
  return std::string(message);
}

std::string tokenizer_config(const SentencePieceTrainOptions& options) {
  nlohmann::ordered_json config = {{"tokenizer_class", "LlamaTokenizer"},
                                   {"add_bos_token", true},
                                   {"add_eos_token", false},
                                   {"bos_token", "<s>"},
                                   {"eos_token", "</s>"},
                                   {"unk_token", "<unk>"},
                                   {"pad_token", nullptr},
                                   {"legacy", false},
                                   {"clean_up_tokenization_spaces", false}};
  if (!options.special_tokens.empty()) config["additional_special_tokens"] = options.special_tokens;
  return config.dump(2) + '\n';
}

}  // namespace

void train_sentencepiece(const TextSource& texts, const SentencePieceTrainOptions& options,
                         const std::filesystem::path& model_dir) {
  check_vocabulary_options(options.vocab_size, options.special_tokens, own_pieces());
  AtomicDirectory directory(model_dir);
  Sentences sentences(texts);
  check<UsageError>(!sentences.done(), "cannot train a tokenizer: the corpus is empty");
  std::unordered_map<std::string, std::string> arguments = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(options.vocab_size)},
      {"character_coverage", str(options.character_coverage)},
      {"num_threads", std::to_string(options.num_threads)},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"allow_whitespace_only_pieces", "true"},
      // Texts come back as they were: no rewriting of characters, no trimming of spaces.
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"max_sentence_length", std::to_string(kMaxSentenceBytes + 1)},
      {"minloglevel", "2"},
  };
  if (!options.special_tokens.empty()) arguments["user_defined_symbols"] = csv(options.special_tokens);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &sentences, &model);
  check<UsageError>(status.ok(), "cannot train a SentencePiece model of ", options.vocab_size,
                    " pieces: ", reason(status.message()));
  atomic_write_file(directory.path() / "tokenizer.model", model);
  atomic_write_file(directory.path() / "tokenizer_config.json", tokenizer_config(options));
  directory.commit();
}

}  // namespace moge::text
