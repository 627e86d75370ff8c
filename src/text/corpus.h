// A corpus: documents as token ids, packed into shards that are mapped, never read whole.
//
//   corpus.json       manifest: version, vocab_size, tokenizer_hash, counts, shards with their xxHash64
//   tokens-00000.bin  64-byte header (CorpusFileHeader), then ids as u16 (vocab_size <= 65536) or u32
//   documents.bin     64-byte header, then three u64 arrays: offset [N+1] (in tokens, over all shards),
//                     text_bytes [N] (of text, for bits per byte), name_hash [N]
//
// Everything is little endian. A document lies in one shard. Checksums cover what follows a header.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"

namespace moge::text {

/// The ids of one document, widened on access.
class TokenSpan {
 public:
  TokenSpan(const std::byte* data, int64_t size, int64_t token_bytes)
      : data_(data), size_(size), token_bytes_(token_bytes) {}
  int64_t size() const { return size_; }
  uint32_t operator[](int64_t i) const {
    return token_bytes_ == 2 ? reinterpret_cast<const uint16_t*>(data_)[i]
                             : reinterpret_cast<const uint32_t*>(data_)[i];
  }

 private:
  const std::byte* data_;
  int64_t size_;
  int64_t token_bytes_;
};

/// Read-only; safe to share between threads.
class Corpus {
 public:
  /// Checks everything but the tokens themselves (headers, sizes, offsets, the documents' checksum).
  /// FileError.
  explicit Corpus(const std::filesystem::path& dir);

  /// Reads all tokens: checksums, and every id below vocab_size. FileError names the shard.
  void verify() const;

  int64_t vocab_size() const { return vocab_size_; }
  /// What the writer said of its tokenizer: compare it with the tokenizer in use.
  uint64_t tokenizer_hash() const { return tokenizer_hash_; }
  int64_t num_tokens() const { return static_cast<int64_t>(offsets_.back()); }
  int64_t num_documents() const { return static_cast<int64_t>(text_bytes_.size()); }
  int64_t num_text_bytes() const { return num_text_bytes_; }

  TokenSpan document(int64_t i) const;
  int64_t document_tokens(int64_t i) const { return static_cast<int64_t>(offsets_[i + 1] - offsets_[i]); }
  int64_t document_text_bytes(int64_t i) const { return static_cast<int64_t>(text_bytes_[i]); }
  uint64_t document_name_hash(int64_t i) const { return name_hashes_[i]; }
  const std::filesystem::path& dir() const { return dir_; }

 private:
  struct Shard {
    MappedFile file;
    int64_t first_token;
    int64_t num_tokens;
    uint64_t xxh64;
  };
  void open_documents(int64_t num_documents, uint64_t xxh64);

  std::filesystem::path dir_;
  int64_t vocab_size_ = 0;
  int64_t token_bytes_ = 0;
  uint64_t tokenizer_hash_ = 0;
  int64_t num_text_bytes_ = 0;
  std::vector<Shard> shards_;
  MappedFile documents_;
  std::span<const uint64_t> offsets_;
  std::span<const uint64_t> text_bytes_;
  std::span<const uint64_t> name_hashes_;
};

/// Which documents train and which are held out for evaluation: indices, ascending.
struct CorpusSplit {
  std::vector<uint32_t> train;
  std::vector<uint32_t> held_out;
};

/// Holds a document out when the xxHash64 of its name is 0 modulo `one_in`: independent of order and of what
/// else is in the corpus. If that holds out nothing, the document of the smallest hash; if it holds out all,
/// that of the largest trains. one_in 0 holds out nothing. FileError for a corpus of no documents, or of one
/// when a split is asked for.
CorpusSplit split_corpus(const Corpus& corpus, int64_t one_in);

/// xxHash64, seed 0: of document names, and of a tokenizer's file for tokenizer_hash.
uint64_t corpus_hash(std::string_view bytes);

/// Writes a corpus that appears under its name in finish() or not at all.
class CorpusWriter {
 public:
  struct Options {
    int64_t vocab_size = 0;
    uint64_t tokenizer_hash = 0;
    int64_t shard_tokens = int64_t{1} << 27;  ///< a shard is closed when the next document would exceed this
    AtomicDirectory::Existing existing = AtomicDirectory::Existing::kRefuse;
  };
  CorpusWriter(const std::filesystem::path& dir, const Options& options);
  ~CorpusWriter();

  /// `name` (a relative path, say) decides the split; `text_bytes` is the size of the text that the tokens
  /// after the first stand for. Documents without tokens are skipped. Throws Error for an id outside
  /// 0..vocab_size-1.
  void add(std::span<const int32_t> tokens, std::string_view name, int64_t text_bytes);
  /// Writes the manifest and renames. FileError if there is no document.
  void finish();

 private:
  struct Shard;
  void close_shard();

  Options options_;
  AtomicDirectory dir_;
  std::unique_ptr<Shard> shard_;
  std::vector<std::pair<int64_t, uint64_t>> closed_;  ///< tokens and checksum of each finished shard
  std::vector<uint64_t> offsets_{0};
  std::vector<uint64_t> text_bytes_;
  std::vector<uint64_t> name_hashes_;
};

}  // namespace moge::text
