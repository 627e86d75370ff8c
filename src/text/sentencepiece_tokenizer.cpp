#include "text/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "text/utf8.h"

namespace moge::text {
namespace {

constexpr int64_t kMaxModelBytes = int64_t{256} << 20;
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // ▁, what SentencePiece writes for a space
// A ModelProto's normalizer_spec { add_dummy_prefix: false }. Protobuf merges a repeated message field by
// field, so appending this to a model changes just the one flag.
constexpr std::string_view kNoDummyPrefix{"\x1a\x02\x18\x00", 4};

/// A user-defined piece that works as a marker ("[unused9]"), not as a way to write white space or one
/// character.
bool is_marker(const SentencePieceEntry& entry) {
  if (entry.type != PieceType::kUserDefined) return false;
  std::string_view rest = entry.piece;
  int num_characters = 0;
  bool has_text = false;
  for (; !rest.empty(); ++num_characters) {
    const Utf8Step step = utf8_step(rest);
    has_text = has_text || (step.code_point != U'\u2581' && !is_white_space(step.code_point));
    rest.remove_prefix(static_cast<size_t>(step.length));
  }
  return has_text && num_characters > 1;
}

std::string replace_space_symbol(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const size_t at = std::min(piece.find(kSpaceSymbol), piece.size());
    text += piece.substr(0, at);
    piece.remove_prefix(at);
    if (piece.empty()) break;
    text += ' ';
    piece.remove_prefix(kSpaceSymbol.size());
  }
  return text;
}

Detokenizer::Token detokenize(const SentencePieceEntry& entry, const SentencePieceModel& model,
                              bool special) {
  switch (entry.type) {
    case PieceType::kUnknown:
      return {model.unk_surface, false, false};
    case PieceType::kControl:
      return {std::string(entry.piece), true, false};
    case PieceType::kByte: {  // <0xE4>; the library checks that there are 256 of them and how they're written
      const std::string hex(entry.piece.substr(std::min<size_t>(3, entry.piece.size()), 2));
      return {std::string(1, static_cast<char>(std::strtol(hex.c_str(), nullptr, 16))), false, false};
    }
    default:
      return {replace_space_symbol(entry.piece), special, entry.piece.starts_with(kSpaceSymbol)};
  }
}

/// A text may be cut before a space that follows something else when the space can only begin a piece. Not
/// for unigram models: which of two equal segmentations they take hangs on the rounding of all that stands
/// before.
bool can_cut_at_spaces(const SentencePieceModel& model) {
  if (!model.is_bpe || model.has_charsmap || model.remove_extra_whitespaces || !model.escape_whitespaces ||
      model.treat_whitespace_as_suffix)
    return false;
  return std::none_of(model.pieces.begin(), model.pieces.end(), [](const SentencePieceEntry& entry) {
    std::string_view rest = entry.piece;
    while (rest.starts_with(kSpaceSymbol)) rest.remove_prefix(kSpaceSymbol.size());
    return rest.find(kSpaceSymbol) != std::string_view::npos || rest.find(' ') != std::string_view::npos;
  });
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string serialized_model, const TokenizerConfig& config,
                                               const std::string& where)
    : serialized_(std::move(serialized_model)),
      where_(where),
      model_(parse_sentencepiece_model(serialized_, where)),
      prefix_every_fragment_(config.legacy),
      cuts_at_spaces_(can_cut_at_spaces(model_)) {
  const sentencepiece::SentencePieceProcessor& library = processor(model_.add_dummy_prefix, true);
  add_vocabulary(config);
  const auto present = [](int id) { return id >= 0 ? std::optional<int32_t>(id) : std::nullopt; };
  find_special_ids(config,
                   {present(library.bos_id()), present(library.eos_id()), present(library.pad_id()),
                    present(library.unk_id())},
                   where);
  add_bos_ =
      config.add_bos_token.value_or(true) && special_ids_.bos.has_value();  // LlamaTokenizer's defaults
  add_eos_ = config.add_eos_token.value_or(false) && special_ids_.eos.has_value();
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::add_vocabulary(const TokenizerConfig& config) {
  const std::unordered_set<std::string> special_contents = config.special_contents();
  std::vector<Detokenizer::Token> tokens;
  std::vector<AddedToken> added, markers;
  for (const SentencePieceEntry& entry : model_.pieces) {
    const auto id = static_cast<int32_t>(tokens.size());
    const bool special = special_contents.contains(std::string(entry.piece));
    tokens.push_back(detokenize(entry, model_, special));
    pieces_.emplace_back(entry.piece);
    piece_to_id_.emplace(pieces_.back(), id);
    const AddedToken token{.id = id, .content = std::string(entry.piece), .special = true};
    if (entry.type == PieceType::kControl || special) added.push_back(token);
    if (is_marker(entry)) markers.push_back(token);
  }
  const size_t num_model_pieces = pieces_.size();
  for (AddedToken token : config.added_tokens) {
    const auto known = piece_to_id_.find(token.content);
    if (token.id < 0 && known == piece_to_id_.end()) continue;  // named, but without an id of its own
    if (known != piece_to_id_.end()) {
      check<FileError>(token.id < 0 || token.id == known->second, where_, ": added token \"", token.content,
                       "\" has id ", token.id, ", but the model has it as ", known->second);
      token.id = known->second;
      token.special = token.special || special_contents.contains(token.content);
    } else {
      const auto id = static_cast<size_t>(token.id);
      check<FileError>(
          id >= num_model_pieces && id < num_model_pieces + config.added_tokens.size() + (1 << 20), where_,
          ": added token \"", token.content, "\" has id ", token.id,
          ", expected one not far above the model's ", num_model_pieces, " pieces");
      tokens.resize(std::max(tokens.size(), id + 1));
      pieces_.resize(tokens.size());
      check<FileError>(pieces_[id].empty(), where_, ": two added tokens have id ", id);
      tokens[id] = {token.content, token.special, false};
      pieces_[id] = token.content;
      piece_to_id_.emplace(token.content, token.id);
    }
    std::erase_if(added, [&](const AddedToken& other) { return other.id == token.id; });
    added.push_back(token);
  }
  using FirstSpace = Detokenizer::FirstSpace;
  const FirstSpace first_space = model_.remove_extra_whitespaces ? FirstSpace::kStripUntilText
                                 : model_.add_dummy_prefix       ? FirstSpace::kStripOne
                                                                 : FirstSpace::kKeep;
  detokenizer_ = Detokenizer(std::move(tokens), first_space, Detokenizer::InvalidUtf8::kPerByte);
  added_tokens_ = AddedTokenMatcher(std::move(added));
  markers_ = AddedTokenMatcher(std::move(markers));
}

const sentencepiece::SentencePieceProcessor& SentencePieceTokenizer::processor(bool dummy_prefix,
                                                                               bool parse_special) const {
  Processor& slot = processors_[(dummy_prefix ? 1 : 0) + (parse_special ? 2 : 0)];
  std::call_once(slot.made, [&] { slot.library = make_processor(dummy_prefix, parse_special); });
  return *slot.library;
}

std::unique_ptr<sentencepiece::SentencePieceProcessor> SentencePieceTokenizer::make_processor(
    bool dummy_prefix, bool parse_special) const {
  std::string serialized = serialized_;
  if (!dummy_prefix) serialized += kNoDummyPrefix;
  if (!parse_special) {
    // As unused pieces the markers stay in the vocabulary but never come out of an encode.
    for (const SentencePieceEntry& entry : model_.pieces)
      if (is_marker(entry)) serialized[entry.type_offset] = static_cast<char>(PieceType::kUnused);
  }
  auto library = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = library->LoadFromSerializedProto(serialized);
  check<FileError>(status.ok(), where_, ": broken SentencePiece model: ", status.message());
  return library;
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text,
                                                    const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special_tokens && add_bos_) ids.push_back(*special_ids_.bos);
  std::vector<Segment> segments;
  added_tokens_.split(text, options.parse_special, options.shielded, segments);
  bool first = true;
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      const bool dummy_prefix = model_.add_dummy_prefix && (first || prefix_every_fragment_);
      if (options.shielded)
        encode_shielded(segment.text, dummy_prefix, options.parse_special, ids);
      else
        encode_fragment(segment.text, dummy_prefix, options.parse_special, ids);
    }
    first = false;
  }
  if (options.add_special_tokens && add_eos_) ids.push_back(*special_ids_.eos);
  return ids;
}

void SentencePieceTokenizer::encode_fragment(std::string_view text, bool dummy_prefix, bool parse_special,
                                             std::vector<int32_t>& ids) const {
  if (cuts_at_spaces_) {
    encode_words(text, dummy_prefix, parse_special, ids);
    return;
  }
  std::vector<int> library_ids;
  const auto status = processor(dummy_prefix, parse_special).Encode(text, &library_ids);
  check<FileError>(status.ok(), where_, ": encoding failed: ", status.message());
  ids.insert(ids.end(), library_ids.begin(), library_ids.end());
}

size_t SentencePieceTokenizer::special_at(std::string_view text) const {
  return std::max(added_tokens_.special_at(text), markers_.special_at(text));
}

// The library looks for markers in all that one call gets, so what is shielded gets a call of its own.
void SentencePieceTokenizer::encode_shielded(std::string_view text, bool dummy_prefix, bool parse_special,
                                             std::vector<int32_t>& ids) const {
  const auto encode_next = [&](size_t bytes, bool special) {
    if (bytes > 0) encode_fragment(text.substr(0, bytes), std::exchange(dummy_prefix, false), special, ids);
    text.remove_prefix(bytes);
  };
  while (!text.empty()) {
    encode_next(std::min(text.find(kShield), text.size()), parse_special);
    if (text.empty()) return;
    text.remove_prefix(kShield.size());
    encode_next(special_at(text), false);
  }
}

// Words repeat and the library is slow (its symbols leave the cache on long texts), so each word, with the
// spaces before it, goes to the library only when it is not remembered.
void SentencePieceTokenizer::encode_words(std::string_view text, bool dummy_prefix, bool parse_special,
                                          std::vector<int32_t>& ids) const {
  const sentencepiece::SentencePieceProcessor& library = processor(false, parse_special);
  ScratchPool<PieceCache>::Lease cache(word_caches_[parse_special ? 1 : 0]);
  std::vector<int> library_ids;
  std::string first_word;
  while (!text.empty()) {
    size_t end = 1;
    while (end < text.size() && !(text[end] == ' ' && text[end - 1] != ' ')) ++end;
    std::string_view word = text.substr(0, end);
    text.remove_prefix(end);
    if (dummy_prefix) {  // which is just one more space
      first_word = str(' ', word);
      word = first_word;
      dummy_prefix = false;
    }
    const bool cacheable = PieceCache::can_hold(word);
    const std::span<const int32_t> known = cacheable ? (*cache).find(word) : std::span<const int32_t>();
    if (!known.empty()) {
      ids.insert(ids.end(), known.begin(), known.end());
      continue;
    }
    const auto status = library.Encode(word, &library_ids);
    check<FileError>(status.ok(), where_, ": encoding failed: ", status.message());
    ids.insert(ids.end(), library_ids.begin(), library_ids.end());
    if (cacheable) (*cache).insert(word, library_ids);
  }
}

std::string SentencePieceTokenizer::id_to_piece(int32_t id) const {
  detokenizer_.token(id);  // checks the range
  return pieces_[static_cast<size_t>(id)];
}

std::optional<int32_t> SentencePieceTokenizer::piece_to_id(std::string_view piece) const {
  const auto found = piece_to_id_.find(std::string(piece));
  if (found == piece_to_id_.end()) return std::nullopt;
  return found->second;
}

std::unique_ptr<SentencePieceTokenizer> load_sentencepiece_tokenizer(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "tokenizer.model";
  return std::make_unique<SentencePieceTokenizer>(read_text_file(path, kMaxModelBytes),
                                                  load_tokenizer_config(model_dir), path.string());
}

}  // namespace moge::text
