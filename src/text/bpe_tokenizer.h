// Hugging Face's tokenizer.json with a BPE model: added tokens, normalizer, pre_tokenizer, model,
// post_processor, decoder, each as Hugging Face's `tokenizers` does it.
#pragma once
#include <algorithm>
#include <memory>
#include <unordered_map>
#include <vector>

#include "text/scratch_pool.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_json.h"

namespace moge::text {

/// Bytes that are not UTF-8 (which `tokenizers` cannot be given) stand by themselves: a maximal run of them
/// is neither normalised nor split, and parts the text around it as an added token does. A byte-level model
/// encodes them like any byte, so every byte string survives a round trip with
/// DecodeOptions::keep_invalid_bytes.
class BpeTokenizer : public Tokenizer {
 public:
  /// FileError, beginning with `where`, if the file's parts contradict each other or the config.
  BpeTokenizer(TokenizerJson file, const TokenizerConfig& config, const std::string& where);

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const override;
  int32_t vocab_size() const override { return detokenizer_.size(); }
  std::string id_to_piece(int32_t id) const override;
  std::optional<int32_t> piece_to_id(std::string_view piece) const override;
  const Detokenizer& detokenizer() const override { return detokenizer_; }

 private:
  /// What one call of encode() needs, kept for the next one: buffers and the cache of pieces.
  struct Scratch {
    RegexScratch regex;
    BpeScratch bpe;
    Pieces pieces;
  };

  void encode_fragment(std::string_view text, bool at_text_start, const EncodeOptions& options,
                       Scratch& scratch, std::vector<int32_t>& ids) const;
  void encode_valid(std::string_view text, bool at_text_start, const EncodeOptions& options, Scratch& scratch,
                    std::vector<int32_t>& ids) const;
  size_t special_at(std::string_view text) const override {
    return std::max(raw_added_tokens_.special_at(text), normalized_added_tokens_.special_at(text));
  }
  void add_vocabulary(const TokenizerJson& file, const TokenizerConfig& config, const std::string& where);

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  AddedTokenMatcher raw_added_tokens_;
  AddedTokenMatcher normalized_added_tokens_;
  std::vector<int32_t> prefix_;  // what the post-processor puts around a text
  std::vector<int32_t> suffix_;
  std::vector<std::string> pieces_;  // by id
  std::unordered_map<std::string, int32_t> added_ids_;
  Detokenizer detokenizer_;

  mutable ScratchPool<Scratch> scratch_;
};

/// Reads tokenizer.json and the JSON files beside it.
std::unique_ptr<BpeTokenizer> load_bpe_tokenizer(const std::filesystem::path& model_dir);

}  // namespace moge::text
