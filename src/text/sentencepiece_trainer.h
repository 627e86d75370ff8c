// Trains SentencePiece BPE models with byte fallback: lossless for valid UTF-8, digits one by one.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "text/text_source.h"

namespace moge::text {

struct SentencePieceTrainOptions {
  int32_t vocab_size = 8192;  // with the 256 byte pieces and all special ones
  /// The share of the text's characters that become pieces; the rest is spelled in bytes.
  double character_coverage = 0.9999;
  int32_t num_threads = 2;
  /// Become single ids; for chat markers. Written to tokenizer_config.json as special tokens.
  std::vector<std::string> special_tokens = {};
};

/// Writes tokenizer.model and tokenizer_config.json (Hugging Face's LlamaTokenizer) into a new folder,
/// which appears when both are complete. Ids: 0 <unk>, 1 <s>, 2 </s>, then special_tokens, bytes, merges. The
/// same texts in the same order give the same file. Hugging Face encodes as we do, except that a text
/// beginning with a space gets no dummy prefix there (and its decode loses that space). UsageError when the
/// texts are empty or too few for the vocabulary, or have more characters than it has room for; FileError,
/// before the texts are read, when the folder exists and is not empty or cannot be made.
void train_sentencepiece(const TextSource& texts, const SentencePieceTrainOptions& options,
                         const std::filesystem::path& model_dir);

}  // namespace moge::text
