// Trains byte-level BPE tokenizers and writes them as tokenizer.json, in the manner of three model families.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/text_source.h"

namespace moge::text {

/// kGpt2: GPT-2's split pattern. kLlama3: contractions in any case, digits by three, ignore_merges. kQwen2:
/// NFC, single digits.
enum class BpeStyle { kGpt2, kLlama3, kQwen2 };

struct BpeTrainOptions {
  BpeStyle style = BpeStyle::kQwen2;
  int32_t vocab_size = 8192;  // with the 256 bytes and the special tokens; fewer if no pair is left to merge
  int64_t min_frequency = 0;  // pairs that occur less often are not merged
  /// Get the ids 0, 1, ...
  std::vector<std::string> special_tokens = {};
  /// Of special_tokens.
  std::optional<std::string> bos_token = {};
  std::optional<std::string> eos_token = {};
  std::optional<std::string> pad_token = {};
  bool add_bos_token = false;  // every encoded text begins with bos_token
};

/// Writes tokenizer.json and tokenizer_config.json (Hugging Face's PreTrainedTokenizerFast) into a new
/// folder, which appears when both are complete. Same vocabulary and merges as `tokenizers`' BpeTrainer on
/// the same texts. UsageError when the options contradict each other or the texts are empty; FileError,
/// before the texts are read, when the folder exists and is not empty or cannot be made.
void train_byte_level_bpe(const TextSource& texts, const BpeTrainOptions& options,
                          const std::filesystem::path& model_dir);

}  // namespace moge::text
