// The corpus's files as they lie on disk, shared by its reader and its writer (corpus.h has the picture).
#pragma once
#include <bit>
#include <cstdint>
#include <string>

#include "core/str.h"

namespace moge::text {

static_assert(std::endian::native == std::endian::little, "corpora are mapped as they lie on disk");

inline constexpr int64_t kCorpusVersion = 1;
inline constexpr uint64_t kTokensMagic = 0x314b4f5445474f4d;     // "MOGETOK1"
inline constexpr uint64_t kDocumentsMagic = 0x31434f4445474f4d;  // "MOGEDOC1"
inline constexpr const char* kManifestName = "corpus.json";
inline constexpr const char* kDocumentsName = "documents.bin";

/// The first 64 bytes of tokens-*.bin and documents.bin.
struct CorpusFileHeader {
  uint64_t magic = 0;
  uint32_t version = kCorpusVersion;
  uint32_t item_bytes = 0;  ///< 2 or 4 for tokens, 8 for documents
  uint64_t num_items = 0;   ///< tokens of this shard, or documents
  uint64_t vocab_size = 0;
  uint64_t tokenizer_hash = 0;
  uint64_t reserved[3] = {};
  bool operator==(const CorpusFileHeader&) const = default;
};
static_assert(sizeof(CorpusFileHeader) == 64);

inline int64_t token_bytes_for(int64_t vocab_size) {
  return vocab_size <= 65536 ? 2 : 4;
}

/// "tokens-00000.bin"
inline std::string shard_name(int64_t shard) {
  const std::string digits = std::to_string(shard);
  return str("tokens-", std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0'), digits, ".bin");
}

/// The value of 16 hexadecimal digits, as Checksum::hex writes them (JSON numbers would lose bits past 2^53).
/// Throws FileError beginning with `where` for anything else.
uint64_t hash_from_hex(const std::string& hex, const std::string& where);

}  // namespace moge::text
