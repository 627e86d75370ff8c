#include "text/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "core/error.h"
#include "text/utf8.h"

namespace moge::text {
namespace {

/// Walks the fields of one protobuf message (developers.google.com/protocol-buffers/docs/encoding).
class Message {
 public:
  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;        // of a varint
    std::string_view bytes;    // of a string, message or fixed-width field
    const char* at = nullptr;  // the first byte of the value
    bool single_byte = false;  // a varint of one byte
  };

  Message(std::string_view bytes, const std::string& where) : rest_(bytes), where_(where) {}

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const uint64_t tag = varint();
    Field field;
    field.number = tag >> 3;
    field.at = rest_.data();
    switch (tag & 7) {
      case 0: {
        const size_t before = rest_.size();
        field.value = varint();
        field.single_byte = before - rest_.size() == 1;
        break;
      }
      case 1:
        field.bytes = take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.bytes = take(4);
        break;
      default:
        throw FileError(
            str(where_, ": not a SentencePiece model: wire type ", tag & 7, " of field ", tag >> 3));
    }
    return field;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    throw FileError(str(where_, ": not a SentencePiece model: a varint of more than 10 bytes"));
  }
  std::string_view take(uint64_t n) {
    check<FileError>(n <= rest_.size(), where_, ": truncated SentencePiece model: a field of ", n,
                     " bytes where ", rest_.size(), " are left");
    const std::string_view bytes = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return bytes;
  }

  std::string_view rest_;
  const std::string& where_;
};

SentencePieceEntry parse_piece(std::string_view bytes, const char* file, const std::string& where) {
  SentencePieceEntry entry;
  Message message(bytes, where);
  while (const auto field = message.next()) {
    if (field->number == 1) entry.piece = field->bytes;
    if (field->number == 2 && field->bytes.size() == 4) std::memcpy(&entry.score, field->bytes.data(), 4);
    if (field->number == 3) {
      check<FileError>(field->value >= 1 && field->value <= 6 && field->single_byte, where,
                       ": piece of unknown type ", field->value);
      entry.type = static_cast<PieceType>(field->value);
      entry.type_offset = static_cast<size_t>(field->at - file);
    }
  }
  check<FileError>(!entry.piece.empty(), where, ": an empty piece");
  check<FileError>(utf8_valid_prefix(entry.piece) == entry.piece.size(), where,
                   ": a piece that is not UTF-8");
  check<FileError>(std::isfinite(entry.score), where, ": piece \"", entry.piece, "\" has score ",
                   entry.score);
  return entry;
}

/// The library follows a charsmap's double-array trie and string pool without bounds checks: refuse one in
/// which some walk could leave them. Layout: u32 trie size in bytes, trie units (darts-clone), zero-ended
/// strings.
void check_charsmap(std::string_view blob, const std::string& where) {
  uint32_t trie_bytes = 0;
  const bool has_header = blob.size() > sizeof(trie_bytes);
  if (has_header) std::memcpy(&trie_bytes, blob.data(), sizeof(trie_bytes));
  check<FileError>(has_header && trie_bytes < blob.size() - sizeof(trie_bytes) && trie_bytes % 1024 == 0 &&
                       trie_bytes > 0 && blob.back() == '\0',
                   where, ": broken normalisation table (", blob.size(), " bytes)");
  const size_t num_units = trie_bytes / 4;
  const size_t pool_bytes = blob.size() - sizeof(trie_bytes) - trie_bytes;
  const auto unit = [&](size_t i) {
    uint32_t value = 0;
    std::memcpy(&value, blob.data() + sizeof(trie_bytes) + 4 * i, 4);
    return value;
  };
  check<FileError>((unit(0) >> 31) == 0, where, ": broken normalisation table at its root");
  for (size_t i = 0; i < num_units; ++i) {
    const uint32_t u = unit(i);
    if ((u >> 31) != 0) continue;                                             // a value, never a node
    const size_t children = i ^ (size_t{u >> 10} << ((u & (1U << 9)) >> 6));  // darts-clone's unit.offset()
    const bool in_trie = (children | 0xFF) < num_units;
    const bool has_leaf = ((u >> 8) & 1) != 0;
    check<FileError>(in_trie && (!has_leaf || (unit(children) & 0x7FFFFFFFU) < pool_bytes), where,
                     ": broken normalisation table at unit ", i);
  }
}

void parse_normalizer(SentencePieceModel& model, std::string_view bytes, const std::string& where) {
  Message message(bytes, where);
  while (const auto field = message.next()) {
    if (field->number == 2 && !field->bytes.empty()) {
      check_charsmap(field->bytes, where);
      model.has_charsmap = true;
    }
    if (field->number == 3) model.add_dummy_prefix = field->value != 0;
    if (field->number == 4) model.remove_extra_whitespaces = field->value != 0;
    if (field->number == 5) model.escape_whitespaces = field->value != 0;
  }
}

constexpr uint64_t kBpe = 2;  // TrainerSpec.ModelType

void parse_trainer(SentencePieceModel& model, std::string_view bytes, const std::string& where) {
  Message message(bytes, where);
  while (const auto field = message.next()) {
    if (field->number == 3) model.is_bpe = field->value == kBpe;
    if (field->number == 24) model.treat_whitespace_as_suffix = field->value != 0;
    if (field->number == 44) model.unk_surface = field->bytes;
  }
}

void parse_denormalizer(std::string_view bytes, const std::string& where) {
  Message message(bytes, where);
  while (const auto field = message.next())
    check<FileError>(field->number != 2 || field->bytes.empty(), where,
                     ": a denormaliser table is not supported");
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view serialized, const std::string& where) {
  SentencePieceModel model;
  Message message(serialized, where);
  while (const auto field = message.next()) {
    if (field->number == 1) model.pieces.push_back(parse_piece(field->bytes, serialized.data(), where));
    if (field->number == 2) parse_trainer(model, field->bytes, where);
    if (field->number == 3) parse_normalizer(model, field->bytes, where);
    if (field->number == 5) parse_denormalizer(field->bytes, where);
  }
  check<FileError>(!model.pieces.empty(), where, ": not a SentencePiece model: no pieces");
  return model;
}

}  // namespace moge::text
