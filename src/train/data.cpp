#include "train/data.h"

#include "core/files.h"
#include "core/log.h"
#include "text/documents.h"

namespace moge::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kManifest = "corpus.json";

/// Of the vocabulary and of the texts: a packed copy is reused only for the same.
uint64_t source_hash(const TrainConfig& config, const fs::path& tokenizer) {
  std::string all = str(text::DocumentSource(config.data).content_hash());
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (fs::exists(tokenizer / name)) all += read_text_file(tokenizer / name);
  return text::corpus_hash(all);
}

void pack(const TrainConfig& config, const text::Tokenizer& tokenizer, const fs::path& to, uint64_t hash) {
  const text::SpecialIds& ids = tokenizer.special_ids();
  text::DocumentSource source(config.data);
  text::CorpusWriter writer(to, {.vocab_size = tokenizer.vocab_size(),
                                 .tokenizer_hash = hash,
                                 .existing = AtomicDirectory::Existing::kReplace});
  log_info("packing ", source.num_files(), " files into ", to.string());
  int64_t num_documents = 0, num_tokens = 0;
  for (text::Document document; source.next(document);) {
    std::vector<int32_t> tokens =
        tokenizer.encode(document.text, {.add_special_tokens = false, .parse_special = false});
    if (ids.bos) tokens.insert(tokens.begin(), *ids.bos);
    if (ids.eos) tokens.push_back(*ids.eos);
    writer.add(tokens, document.name, static_cast<int64_t>(document.text.size()));
    ++num_documents;
    num_tokens += static_cast<int64_t>(tokens.size());
  }
  writer.finish();
  log_info("packed ", num_documents, " documents, ", num_tokens, " tokens");
}

}  // namespace

text::Corpus open_corpus(const TrainConfig& config, const text::Tokenizer& tokenizer,
                         int64_t model_vocab_size) {
  text::check_vocabulary(tokenizer, config.tokenizer, model_vocab_size);
  if (config.data.size() == 1 && fs::exists(config.data[0] / kManifest)) {
    text::Corpus corpus(config.data[0]);
    check<FileError>(corpus.vocab_size() <= model_vocab_size, config.data[0].string(),
                     ": the corpus has vocab_size ", corpus.vocab_size(), ", the model ", model_vocab_size);
    corpus.verify();
    return corpus;
  }
  const fs::path packed = config.output / "corpus";
  const uint64_t hash = source_hash(config, config.tokenizer);
  if (fs::exists(packed / kManifest)) {
    text::Corpus corpus(packed);
    if (corpus.tokenizer_hash() == hash) {
      corpus.verify();
      return corpus;
    }
  }
  pack(config, tokenizer, packed, hash);
  return text::Corpus(packed);
}

MicroBatch as_micro_batch(text::TokenBatch& rows) {
  const auto tensor = [](std::vector<int32_t>& v) {
    return Tensor(v.data(), DType::kI32, {static_cast<int64_t>(v.size())});
  };
  return {{.tokens = tensor(rows.tokens),
           .positions = tensor(rows.positions),
           .cu_seqlens = tensor(rows.cu_seqlens)},
          tensor(rows.targets)};
}

}  // namespace moge::train
