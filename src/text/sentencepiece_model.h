// The parts of a SentencePiece model file (a ModelProto, sentencepiece_model.proto) that the library's public
// header hides: piece types and normaliser flags. Reading them ourselves also lets us refuse, before the
// library sees it, a file on which the library would read out of bounds.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moge::text {

/// ModelProto.SentencePiece.Type.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct SentencePieceEntry {
  std::string_view piece;  // into the serialized model
  float score = 0;
  PieceType type = PieceType::kNormal;
  size_t type_offset = 0;  // of the type's byte in the serialized model, 0 if the field is absent
};

struct SentencePieceModel {
  std::vector<SentencePieceEntry> pieces;  // in the order of ids
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_charsmap = false;  // characters are rewritten before segmentation (NFKC and the like)
  bool treat_whitespace_as_suffix = false;
  bool is_bpe = false;                         // else unigram, words or characters
  std::string unk_surface = " \xE2\x81\x87 ";  // what an unknown token decodes to: " ⁇ "
};

/// FileError, beginning with `where`, if the bytes are not a model that the library can use safely.
SentencePieceModel parse_sentencepiece_model(std::string_view serialized, const std::string& where);

}  // namespace moge::text
