#include "text/corpus.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/checksum.h"
#include "core/error.h"
#include "core/json.h"
#include "text/corpus_format.h"

namespace moge::text {

namespace {

constexpr int64_t kHeaderBytes = sizeof(CorpusFileHeader);
// Far beyond any real corpus, and small enough that products of these cannot overflow.
constexpr int64_t kMaxItems = int64_t{1} << 44;

/// Maps a file and compares its header and size with what the manifest says.
MappedFile open_checked(const std::filesystem::path& path, const CorpusFileHeader& expected,
                        int64_t payload_bytes) {
  MappedFile file(path);
  const std::string& name = path.string();
  check<FileError>(file.size() >= kHeaderBytes, name, ": expected a header of ", kHeaderBytes, " bytes, got ",
                   file.size(), " bytes in all");
  CorpusFileHeader got;
  std::memcpy(&got, file.bytes().data(), sizeof got);
  check<FileError>(got.magic == expected.magic, name, ": not a corpus file (wrong magic number)");
  check<FileError>(got.version == expected.version, name, ": expected version ", expected.version, ", got ",
                   got.version);
  check<FileError>(got == expected, name, ": its header disagrees with corpus.json: expected ",
                   expected.num_items, " items of ", expected.item_bytes, " bytes, vocab_size ",
                   expected.vocab_size, ", tokenizer ", Checksum::hex(expected.tokenizer_hash), "; got ",
                   got.num_items, " of ", got.item_bytes, ", ", got.vocab_size, ", ",
                   Checksum::hex(got.tokenizer_hash));
  check<FileError>(file.size() == kHeaderBytes + payload_bytes, name, ": expected ",
                   kHeaderBytes + payload_bytes, " bytes, got ", file.size(), " (truncated?)");
  return file;
}

void check_hash(const MappedFile& file, uint64_t expected) {
  const uint64_t got = Checksum::of(file.bytes().subspan(kHeaderBytes));
  check<FileError>(got == expected, file.path().string(), ": corrupt: expected xxHash64 ",
                   Checksum::hex(expected), ", got ", Checksum::hex(got));
}

}  // namespace

uint64_t hash_from_hex(const std::string& hex, const std::string& where) {
  uint64_t hash = 0;
  const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), hash, 16);
  check<FileError>(error == std::errc{} && end == hex.data() + hex.size() && hex.size() == 16, where,
                   ": expected 16 hexadecimal digits, got '", hex, "'");
  return hash;
}

Corpus::Corpus(const std::filesystem::path& dir) : dir_(dir) {
  const std::string path = (dir / kManifestName).string();
  const nlohmann::json json = parse_json(read_text_file(path), path);
  JsonObject manifest(json, path);
  const std::string format = manifest.require(manifest.text("format"), "format");
  check<FileError>(format == "moge-corpus", path, ": format: expected \"moge-corpus\", got \"", format, "\"");
  manifest.require(manifest.integer("version", kCorpusVersion, kCorpusVersion), "version");
  const auto integer = [&](const char* key, int64_t min, int64_t max) {
    return manifest.require(manifest.integer(key, min, max), key);
  };
  const auto hash = [&](JsonObject& object, const char* key) {
    return hash_from_hex(object.require(object.text(key), key), str(object.where(), ": ", key));
  };
  vocab_size_ = integer("vocab_size", 1, INT32_MAX);
  token_bytes_ = token_bytes_for(vocab_size_);
  integer("token_bytes", token_bytes_, token_bytes_);
  tokenizer_hash_ = hash(manifest, "tokenizer_hash");
  const int64_t num_documents = integer("num_documents", 1, UINT32_MAX);
  const int64_t num_tokens = integer("num_tokens", 1, kMaxItems);

  const nlohmann::json* shards = manifest.find("shards");
  if (!shards) manifest.throw_missing("shards");
  if (!shards->is_array()) manifest.throw_wrong("shards", "an array");
  int64_t first_token = 0;
  for (const nlohmann::json& item : *shards) {
    const auto index = static_cast<int64_t>(shards_.size());
    JsonObject shard(item, str(path, ": shards[", index, "]"));
    const int64_t size = shard.require(shard.integer("num_tokens", 1, kMaxItems), "num_tokens");
    const uint64_t xxh64 = hash(shard, "xxh64");
    const CorpusFileHeader header{.magic = kTokensMagic,
                                  .item_bytes = static_cast<uint32_t>(token_bytes_),
                                  .num_items = static_cast<uint64_t>(size),
                                  .vocab_size = static_cast<uint64_t>(vocab_size_),
                                  .tokenizer_hash = tokenizer_hash_};
    shards_.push_back(
        {open_checked(dir / shard_name(index), header, size * token_bytes_), first_token, size, xxh64});
    first_token += size;
  }
  check<FileError>(first_token == num_tokens, path, ": num_tokens: expected the shards' sum ", first_token,
                   ", got ", num_tokens);
  open_documents(num_documents, hash(manifest, "documents_xxh64"));
}

void Corpus::open_documents(int64_t num_documents, uint64_t xxh64) {
  const CorpusFileHeader header{.magic = kDocumentsMagic,
                                .item_bytes = 8,
                                .num_items = static_cast<uint64_t>(num_documents),
                                .vocab_size = static_cast<uint64_t>(vocab_size_),
                                .tokenizer_hash = tokenizer_hash_};
  documents_ = open_checked(dir_ / kDocumentsName, header, 8 * (3 * num_documents + 1));
  check_hash(documents_, xxh64);
  const auto* values = reinterpret_cast<const uint64_t*>(documents_.bytes().data() + kHeaderBytes);
  const auto n = static_cast<size_t>(num_documents);
  offsets_ = {values, n + 1};
  text_bytes_ = {values + n + 1, n};
  name_hashes_ = {values + 2 * n + 1, n};

  // A right checksum does not make a right file: what is used as an index is checked.
  const std::string name = documents_.path().string();
  const int64_t num_tokens = shards_.back().first_token + shards_.back().num_tokens;
  check<FileError>(offsets_[0] == 0 && num_tokens == this->num_tokens(), name, ": offsets: expected 0..",
                   num_tokens, ", got ", offsets_[0], "..", offsets_.back());
  size_t shard = 0;
  for (size_t i = 0; i < n; ++i) {
    check<FileError>(offsets_[i] < offsets_[i + 1] && offsets_[i + 1] <= offsets_.back(), name, ": document ",
                     i, ": expected ascending offsets, got ", offsets_[i], " and ", offsets_[i + 1]);
    while (static_cast<int64_t>(offsets_[i]) >= shards_[shard].first_token + shards_[shard].num_tokens)
      ++shard;
    check<FileError>(
        static_cast<int64_t>(offsets_[i + 1]) <= shards_[shard].first_token + shards_[shard].num_tokens, name,
        ": document ", i, ": crosses the end of ", shard_name(static_cast<int64_t>(shard)));
    check<FileError>(text_bytes_[i] <= static_cast<uint64_t>(kMaxItems), name, ": document ", i, ": text of ",
                     text_bytes_[i], " bytes");
    num_text_bytes_ += static_cast<int64_t>(text_bytes_[i]);
  }
}

TokenSpan Corpus::document(int64_t i) const {
  const auto begin = static_cast<int64_t>(offsets_[i]);
  const auto after = std::upper_bound(shards_.begin(), shards_.end(), begin,
                                      [](int64_t token, const Shard& s) { return token < s.first_token; });
  const Shard& shard = *std::prev(after);
  return {shard.file.bytes().data() + kHeaderBytes + (begin - shard.first_token) * token_bytes_,
          document_tokens(i), token_bytes_};
}

void Corpus::verify() const {
  for (const Shard& shard : shards_) {
    check_hash(shard.file, shard.xxh64);
    const TokenSpan tokens(shard.file.bytes().data() + kHeaderBytes, shard.num_tokens, token_bytes_);
    uint32_t largest = 0;
    for (int64_t i = 0; i < tokens.size(); ++i) largest = std::max(largest, tokens[i]);
    check<FileError>(largest < static_cast<uint64_t>(vocab_size_), shard.file.path().string(),
                     ": expected ids in 0..", vocab_size_ - 1, ", got ", largest);
  }
}

CorpusSplit split_corpus(const Corpus& corpus, int64_t one_in) {
  check<UsageError>(one_in >= 0 && one_in != 1,
                    "held-out split: expected 0 (none) or one document in at least 2, got ", one_in);
  CorpusSplit split;
  const auto n = static_cast<uint32_t>(corpus.num_documents());
  for (uint32_t i = 0; i < n; ++i) {
    const bool held_out = one_in > 0 && corpus.document_name_hash(i) % static_cast<uint64_t>(one_in) == 0;
    (held_out ? split.held_out : split.train).push_back(i);
  }
  if (one_in == 0) return split;
  check<FileError>(n >= 2, corpus.dir().string(),
                   ": a held-out split needs at least 2 documents (files, or lines of "
                   "a .jsonl), got ",
                   n, "; cut the text into several files");
  const auto by_hash = [&](uint32_t a, uint32_t b) {
    return corpus.document_name_hash(a) < corpus.document_name_hash(b);
  };
  if (split.held_out.empty()) {
    const auto smallest = std::min_element(split.train.begin(), split.train.end(), by_hash);
    split.held_out.push_back(*smallest);
    split.train.erase(smallest);
  } else if (split.train.empty()) {
    const auto largest = std::max_element(split.held_out.begin(), split.held_out.end(), by_hash);
    split.train.push_back(*largest);
    split.held_out.erase(largest);
  }
  return split;
}

}  // namespace moge::text
