#include "text/bpe_tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "core/files.h"
#include "text/utf8.h"

namespace moge::text {

BpeTokenizer::BpeTokenizer(TokenizerJson file, const TokenizerConfig& config, const std::string& where)
    : normalizer_(std::move(file.normalizer)),
      pre_tokenizer_(std::move(file.pre_tokenizer)),
      model_(std::move(file.model), pre_tokenizer_.byte_level(), where),
      prefix_(std::move(file.prefix)),
      suffix_(std::move(file.suffix)) {
  add_vocabulary(file, config, where);
  find_special_ids(config, {}, where);
  if (!file.has_template) {
    if (config.add_bos_token.value_or(false) && special_ids_.bos) prefix_ = {*special_ids_.bos};
    if (config.add_eos_token.value_or(false) && special_ids_.eos) suffix_ = {*special_ids_.eos};
  }
  for (const std::vector<int32_t>* ids : {&prefix_, &suffix_})
    for (const int32_t id : *ids)
      check<FileError>(id < vocab_size(), where, ": post_processor: id ", id,
                       " is outside the vocabulary of ", vocab_size());
}

void BpeTokenizer::add_vocabulary(const TokenizerJson& file, const TokenizerConfig& config,
                                  const std::string& where) {
  const size_t limit = 2 * (model_.vocab().size() + file.added_tokens.size()) + (1 << 16);
  auto num_ids = static_cast<size_t>(model_.max_id()) + 1;
  for (const AddedToken& token : file.added_tokens) {
    check<FileError>(static_cast<size_t>(token.id) < limit, where, ": added token \"", token.content,
                     "\" has id ", token.id, ", expected 0..", limit - 1);
    num_ids = std::max(num_ids, static_cast<size_t>(token.id) + 1);
  }
  const std::unordered_set<std::string> special = config.special_contents();
  std::vector<Detokenizer::Token> tokens(num_ids);
  pieces_.resize(num_ids);
  for (const auto& [piece, id] : model_.vocab()) {
    tokens[static_cast<size_t>(id)] = file.decoder.decode(piece, special.contains(piece));
    pieces_[static_cast<size_t>(id)] = piece;
  }
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  RegexScratch regex;
  for (AddedToken token : file.added_tokens) {
    std::string& piece = pieces_[static_cast<size_t>(token.id)];
    const std::optional<int32_t> known = piece_to_id(token.content);
    check<FileError>(!known || *known == token.id, where, ": added token \"", token.content, "\" has id ",
                     token.id, ", but also ", known.value_or(-1));
    check<FileError>(piece.empty() || piece == token.content, where, ": id ", token.id, " is given to \"",
                     piece, "\" and to \"", token.content, '"');
    token.special = token.special || special.contains(token.content);
    piece = token.content;
    added_ids_.emplace(token.content, token.id);
    if (token.normalized) normalizer_.apply(token.content, regex);  // decodes to what it matches, too
    tokens[static_cast<size_t>(token.id)] = file.decoder.decode(token.content, token.special);
    (token.normalized ? normalized : raw).push_back(std::move(token));
  }
  raw_added_tokens_ = AddedTokenMatcher(std::move(raw));
  normalized_added_tokens_ = AddedTokenMatcher(std::move(normalized));
  detokenizer_ = Detokenizer(std::move(tokens), file.decoder.first_space(), file.decoder.invalid_utf8());
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = prefix_;
  ScratchPool<Scratch>::Lease scratch(scratch_);
  std::vector<Segment> segments;
  raw_added_tokens_.split(text, options.parse_special, options.shielded, segments);
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_fragment(segment.text, segment.text.data() == text.data(), options, *scratch, ids);
    }
  }
  if (options.add_special_tokens) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

void BpeTokenizer::encode_fragment(std::string_view text, bool at_text_start, const EncodeOptions& options,
                                   Scratch& scratch, std::vector<int32_t>& ids) const {
  for_each_utf8_run(text, [&](std::string_view run, bool valid) {
    if (valid) {
      encode_valid(run, at_text_start && run.data() == text.data(), options, scratch, ids);
    } else {
      model_.encode(run, scratch.bpe, ids);
    }
  });
}

void BpeTokenizer::encode_valid(std::string_view text, bool at_text_start, const EncodeOptions& options,
                                Scratch& scratch, std::vector<int32_t>& ids) const {
  std::string normalized;
  if (!normalizer_.empty()) {
    normalized = text;
    normalizer_.apply(normalized, scratch.regex);
    text = normalized;
  }
  std::vector<Segment> segments;
  normalized_added_tokens_.split(text, options.parse_special, options.shielded, segments);
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    Pieces& pieces = scratch.pieces;
    std::string unshielded;
    if (options.shielded) unshielded = without_shields(segment.text);
    pieces.views.assign(1, options.shielded ? unshielded : segment.text);
    pieces.owned.clear();
    pieces.at_text_start = at_text_start && segment.text.data() == text.data();
    pre_tokenizer_.apply(pieces, scratch.regex);
    for (const std::string_view piece : pieces.views) model_.encode(piece, scratch.bpe, ids);
  }
}

std::string BpeTokenizer::id_to_piece(int32_t id) const {
  detokenizer_.token(id);  // checks the range
  return pieces_[static_cast<size_t>(id)];
}

std::optional<int32_t> BpeTokenizer::piece_to_id(std::string_view piece) const {
  const auto added = added_ids_.find(std::string(piece));
  if (added != added_ids_.end()) return added->second;
  return model_.piece_to_id(piece);
}

std::unique_ptr<BpeTokenizer> load_bpe_tokenizer(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "tokenizer.json";
  const TokenizerConfig config = load_tokenizer_config(model_dir);
  return std::make_unique<BpeTokenizer>(parse_tokenizer_json(read_text_file(path), path.string()), config,
                                        path.string());
}

}  // namespace moge::text
