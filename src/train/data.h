// The run's text as micro-batches: packs raw text once, then serves rows of training and held-out documents.
#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "text/batches.h"
#include "text/tokenizer.h"
#include "train/config.h"

namespace moge::train {

/// Opens the packed corpus that `config.data` names, or packs the text it names into config.output/corpus
/// (reused while the tokenizer's files and the texts stay the same). What lay on disk is read whole and its
/// checksums compared. FileError for a damaged corpus, text without documents, or a vocabulary larger than
/// the model's.
text::Corpus open_corpus(const TrainConfig& config, const text::Tokenizer& tokenizer,
                         int64_t model_vocab_size);

/// A batch's vectors as tensors; `rows` must stay unchanged while they are in use.
MicroBatch as_micro_batch(text::TokenBatch& rows);

}  // namespace moge::train
