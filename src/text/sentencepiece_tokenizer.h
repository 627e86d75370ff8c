// SentencePiece models through the system's library. Texts equal its own encode and decode (0.1.99's bit for
// bit; 0.2.3 takes another of a unigram model's segmentations of the same score); what we add is what Hugging
// Face's wrapper adds: special tokens in the text, bos and eos, and plain text that cannot forge them.
#pragma once
#include <array>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "text/added_tokens.h"
#include "text/piece_cache.h"
#include "text/scratch_pool.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace moge::text {

/// Invalid UTF-8 follows SentencePiece's rule: every byte that is not part of a well-formed character is read
/// as U+FFFD (so the bytes themselves do not survive a round trip).
class SentencePieceTokenizer : public Tokenizer {
 public:
  /// FileError, beginning with `where`, on a broken model.
  SentencePieceTokenizer(std::string serialized_model, const TokenizerConfig& config,
                         const std::string& where);
  ~SentencePieceTokenizer() override;

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const override;
  int32_t vocab_size() const override { return detokenizer_.size(); }
  std::string id_to_piece(int32_t id) const override;
  std::optional<int32_t> piece_to_id(std::string_view piece) const override;
  const Detokenizer& detokenizer() const override { return detokenizer_; }

 private:
  /// The library has no switches for a single call, so each way to encode has its own processor, made when
  /// first used from the model's bytes with some fields changed.
  struct Processor {
    std::once_flag made;
    std::unique_ptr<sentencepiece::SentencePieceProcessor> library;
  };
  const sentencepiece::SentencePieceProcessor& processor(bool dummy_prefix, bool parse_special) const;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> make_processor(bool dummy_prefix,
                                                                        bool parse_special) const;
  void encode_fragment(std::string_view text, bool dummy_prefix, bool parse_special,
                       std::vector<int32_t>& ids) const;
  void encode_shielded(std::string_view text, bool dummy_prefix, bool parse_special,
                       std::vector<int32_t>& ids) const;
  void encode_words(std::string_view text, bool dummy_prefix, bool parse_special,
                    std::vector<int32_t>& ids) const;
  size_t special_at(std::string_view text) const override;
  void add_vocabulary(const TokenizerConfig& config);

  std::string serialized_;
  std::string where_;
  SentencePieceModel model_;
  std::vector<std::string> pieces_;  // by id, added tokens included
  std::unordered_map<std::string, int32_t> piece_to_id_;
  Detokenizer detokenizer_;
  AddedTokenMatcher added_tokens_;
  AddedTokenMatcher markers_;  // those of the model's pieces that the library itself finds
  bool add_bos_ = false;
  bool add_eos_ = false;
  bool prefix_every_fragment_ = false;  // tokenizer_config.json's legacy
  bool cuts_at_spaces_ = false;         // no piece crosses from a word into the next space
  mutable std::array<Processor, 4> processors_;
  mutable std::array<ScratchPool<PieceCache>, 2> word_caches_;  // by parse_special
};

/// Reads tokenizer.model and the JSON files beside it.
std::unique_ptr<SentencePieceTokenizer> load_sentencepiece_tokenizer(const std::filesystem::path& model_dir);

}  // namespace moge::text
