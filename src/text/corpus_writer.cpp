#include <nlohmann/json.hpp>

#include "core/checksum.h"
#include "core/error.h"
#include "text/corpus.h"
#include "text/corpus_format.h"

namespace moge::text {

uint64_t corpus_hash(std::string_view bytes) {
  return Checksum::of(std::as_bytes(std::span(bytes)));
}

/// The shard being written: its header is written first, empty, and again when the counts are known.
struct CorpusWriter::Shard {
  explicit Shard(const std::filesystem::path& path) : out(path) {
    out.write(std::as_bytes(std::span(&header, 1)));
  }
  CorpusFileHeader header;
  FileWriter out;
  Checksum hash;
};

CorpusWriter::CorpusWriter(const std::filesystem::path& dir, const Options& options)
    : options_(options), dir_(dir, options.existing) {
  check<Error>(options.vocab_size > 0 && options.vocab_size <= INT32_MAX,
               "corpus: expected a vocab_size in 1..2147483647, got ", options.vocab_size);
}

CorpusWriter::~CorpusWriter() = default;

void CorpusWriter::add(std::span<const int32_t> tokens, std::string_view name, int64_t text_bytes) {
  if (tokens.empty()) return;
  for (const int32_t id : tokens)
    check<Error>(id >= 0 && id < options_.vocab_size, "corpus: document ", name,
                 ": expected token ids in 0..", options_.vocab_size - 1, ", got ", id);
  check<FileError>(name_hashes_.size() < UINT32_MAX, "corpus: expected at most ", UINT32_MAX, " documents");
  const auto size = static_cast<int64_t>(tokens.size());
  if (shard_ && static_cast<int64_t>(shard_->header.num_items) + size > options_.shard_tokens) close_shard();
  if (!shard_)
    shard_ = std::make_unique<Shard>(dir_.path() / shard_name(static_cast<int64_t>(closed_.size())));

  const auto write = [&](std::span<const std::byte> bytes) {
    shard_->out.write(bytes);
    shard_->hash.update(bytes);
  };
  if (token_bytes_for(options_.vocab_size) == 4) {
    write(std::as_bytes(tokens));
  } else {
    const std::vector<uint16_t> narrow(tokens.begin(), tokens.end());
    write(std::as_bytes(std::span(narrow)));
  }
  shard_->header.num_items += static_cast<uint64_t>(size);
  offsets_.push_back(offsets_.back() + static_cast<uint64_t>(size));
  text_bytes_.push_back(static_cast<uint64_t>(text_bytes));
  name_hashes_.push_back(corpus_hash(name));
}

void CorpusWriter::close_shard() {
  CorpusFileHeader& header = shard_->header;
  header.magic = kTokensMagic;
  header.item_bytes = static_cast<uint32_t>(token_bytes_for(options_.vocab_size));
  header.vocab_size = static_cast<uint64_t>(options_.vocab_size);
  header.tokenizer_hash = options_.tokenizer_hash;
  shard_->out.write_at(0, std::as_bytes(std::span(&header, 1)));
  shard_->out.close();
  closed_.emplace_back(static_cast<int64_t>(header.num_items), shard_->hash.value());
  shard_.reset();
}

void CorpusWriter::finish() {
  check<FileError>(!text_bytes_.empty(), "cannot write corpus ", dir_.final_path().string(),
                   ": expected at least one document with text, got none");
  close_shard();

  Checksum hash;
  const CorpusFileHeader header{.magic = kDocumentsMagic,
                                .item_bytes = 8,
                                .num_items = text_bytes_.size(),
                                .vocab_size = static_cast<uint64_t>(options_.vocab_size),
                                .tokenizer_hash = options_.tokenizer_hash};
  FileWriter out(dir_.path() / kDocumentsName);
  out.write(std::as_bytes(std::span(&header, 1)));
  for (const std::vector<uint64_t>* array : {&offsets_, &text_bytes_, &name_hashes_}) {
    out.write(std::as_bytes(std::span(*array)));
    hash.update(std::as_bytes(std::span(*array)));
  }
  out.close();

  nlohmann::ordered_json manifest = {
      {"format", "moge-corpus"},
      {"version", kCorpusVersion},
      {"vocab_size", options_.vocab_size},
      {"token_bytes", token_bytes_for(options_.vocab_size)},
      {"tokenizer_hash", Checksum::hex(options_.tokenizer_hash)},
      {"num_documents", text_bytes_.size()},
      {"num_tokens", offsets_.back()},
      {"documents_xxh64", Checksum::hex(hash.value())},
      {"shards", nlohmann::ordered_json::array()},
  };
  for (const auto& [num_tokens, xxh64] : closed_)
    manifest["shards"].push_back({{"num_tokens", num_tokens}, {"xxh64", Checksum::hex(xxh64)}});
  FileWriter manifest_out(dir_.path() / kManifestName);
  manifest_out.write(manifest.dump(2) + "\n");
  manifest_out.close();
  dir_.commit();
}

}  // namespace moge::text
