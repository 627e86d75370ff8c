#include "train/data.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/json.h"
#include "core/log.h"
#include "text/documents.h"

namespace moge::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kManifest = "corpus.json";

/// Of the tokenizer's files and of the texts: a packed copy is reused only for the same. The file that may
/// hold a chat template counts without it: that changes no token of a text.
uint64_t source_hash(const TrainConfig& config, const fs::path& tokenizer) {
  std::string all = str(text::DocumentSource(config.data).content_hash());
  for (const char* name : {"tokenizer.json", "tokenizer.model", "special_tokens_map.json",
                           "added_tokens.json", "tokenizer_config.json"}) {
    const fs::path path = tokenizer / name;
    if (!fs::exists(path)) continue;
    std::string content = read_text_file(path);
    if (path.filename() == "tokenizer_config.json") {
      nlohmann::json json = parse_json(content, path.string());
      json.erase("chat_template");
      content = json.dump();
    }
    all += str(name, ' ', content.size(), ' ', content);
  }
  return text::corpus_hash(all);
}

/// The bytes of text that a model predicts: without a bos nothing comes before the first token.
int64_t predicted_bytes(const text::Document& document, std::span<const int32_t> tokens,
                        const text::Tokenizer& tokenizer) {
  const auto all = static_cast<int64_t>(document.text.size());
  if (tokens.empty() || tokenizer.special_ids().bos) return all;
  const std::string first = tokenizer.decode(tokens.first(1), {.keep_invalid_bytes = true});
  return all - std::min(all, static_cast<int64_t>(first.size()));
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
    const int64_t bytes = predicted_bytes(document, tokens, tokenizer);
    if (ids.bos) tokens.insert(tokens.begin(), *ids.bos);
    if (ids.eos) tokens.push_back(*ids.eos);
    writer.add(tokens, document.name, bytes);
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
