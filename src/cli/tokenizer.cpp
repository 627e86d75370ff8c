// moge tokenizer train | encode | decode.
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/text_input.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread_pool.h"
#include "text/bpe_trainer.h"
#include "text/documents.h"
#include "text/sentencepiece_trainer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace moge::cli {

namespace {

struct TrainTokenizerOptions {
  std::vector<std::string> input;
  std::filesystem::path output;
  std::string type = "sentencepiece";
  std::optional<std::string> style;
  int64_t vocab_size = 8192;
  std::vector<std::string> special_tokens;

  std::vector<Option> options() {
    return {{.name = "input",
             .target = &input,
             .value = "PATH",
             .help = "A text file (.txt, .md, .jsonl) or a folder of them; may be repeated",
             .required = true},
            {.name = "output",
             .target = &output,
             .value = "DIR",
             .help = "A new folder for it",
             .required = true},
            {.name = "vocab-size",
             .target = &vocab_size,
             .value = "N",
             .help = "Tokens, with the 256 bytes and the special ones",
             .min = 260,
             .max = 1 << 24},
            {.name = "type",
             .target = &type,
             .value = "TYPE",
             .help = "sentencepiece (tokenizer.model) or bpe (byte-level tokenizer.json)",
             .choices = {"sentencepiece", "bpe"}},
            {.name = "style",
             .target = &style,
             .value = "NAME",
             .help = "With bpe: whose way to split text and whose special tokens, gpt2, llama3 or qwen2 "
                     "(default: qwen2)",
             .choices = {"gpt2", "llama3", "qwen2"}},
            {.name = "special-token",
             .target = &special_tokens,
             .value = "TEXT",
             .help = "Becomes one id, for chat markers; may be repeated"}};
  }
};

/// A family's own bos and eos come first, then the user's special tokens.
text::BpeTrainOptions bpe_options(const TrainTokenizerOptions& o) {
  text::BpeTrainOptions train{.vocab_size = static_cast<int32_t>(o.vocab_size)};
  const std::string style = o.style.value_or("qwen2");
  if (style == "llama3") {
    train.style = text::BpeStyle::kLlama3;
    train.bos_token = "<|begin_of_text|>";
    train.eos_token = "<|end_of_text|>";
    train.add_bos_token = true;
    train.special_tokens = {*train.bos_token, *train.eos_token};
  } else {
    train.style = style == "gpt2" ? text::BpeStyle::kGpt2 : text::BpeStyle::kQwen2;
    train.eos_token = "<|endoftext|>";
    if (style == "gpt2") train.bos_token = train.eos_token;
    train.special_tokens = {*train.eos_token};
  }
  train.special_tokens.insert(train.special_tokens.end(), o.special_tokens.begin(), o.special_tokens.end());
  return train;
}

void train_tokenizer(const TrainTokenizerOptions& o) {
  check<UsageError>(o.type == "bpe" || !o.style, "--style is of --type bpe");
  text::DocumentSource documents({o.input.begin(), o.input.end()});
  int64_t num_documents = 0, num_bytes = 0;
  text::Document document;
  const text::TextSource texts = [&](std::string& next) {
    if (!documents.next(document)) return false;
    ++num_documents;
    num_bytes += static_cast<int64_t>(document.text.size());
    next = std::move(document.text);
    return true;
  };
  if (o.type == "bpe")
    text::train_byte_level_bpe(texts, bpe_options(o), o.output);
  else
    text::train_sentencepiece(
        texts, {.vocab_size = static_cast<int32_t>(o.vocab_size), .special_tokens = o.special_tokens},
        o.output);
  const int64_t learnt = text::load_tokenizer(o.output)->vocab_size();
  log_info(o.output.string(), ": ", learnt, " tokens learnt from ", num_documents, " documents, ", num_bytes,
           " bytes");
  if (learnt < o.vocab_size)
    log_warning("the texts have no more tokens than that: ", o.vocab_size, " were asked for");
}

struct EncodeOptions {
  std::filesystem::path model;
  std::optional<std::string> text;
  bool no_special = false;
  bool parse_special = false;
  bool json = false;

  std::vector<Option> options() {
    return {
        {.name = "MODEL", .target = &model, .help = "Folder with tokenizer.json or tokenizer.model"},
        {.name = "TEXT", .target = &text, .help = "What to encode; without it standard input"},
        {.name = "no-special", .target = &no_special, .help = "Without the model's bos and eos around it"},
        {.name = "parse-special",
         .target = &parse_special,
         .help = "A special token's string in the text becomes its id"},
        {.name = "json", .target = &json, .help = "Print {\"ids\": [...], \"pieces\": [...]}"}};
  }
};

void encode(const EncodeOptions& o) {
  if (o.text) text::check_utf8<UsageError>(*o.text, "TEXT");
  const auto tokenizer = text::load_tokenizer(o.model);
  const std::vector<int32_t> ids =
      tokenizer->encode(o.text ? *o.text : read_stdin(),
                        {.add_special_tokens = !o.no_special, .parse_special = o.parse_special});
  if (!o.json) {
    std::cout << format_ids(ids) << '\n';
    return;
  }
  nlohmann::ordered_json out = {{"ids", ids}, {"pieces", nlohmann::ordered_json::array()}};
  for (const int32_t id : ids) out["pieces"].push_back(tokenizer->id_to_piece(id));
  print_json(out);
}

struct DecodeOptions {
  std::filesystem::path model;
  std::optional<std::string> ids;
  bool keep_special = false;

  std::vector<Option> options() {
    return {{.name = "MODEL", .target = &model, .help = "Folder with tokenizer.json or tokenizer.model"},
            {.name = "IDS", .target = &ids, .help = "Token ids (\"1 2 3\"); without them standard input"},
            {.name = "keep-special", .target = &keep_special, .help = "Print bos, eos and chat markers too"}};
  }
};

void decode(const DecodeOptions& o) {
  const auto tokenizer = text::load_tokenizer(o.model);
  std::cout << tokenizer->decode(parse_ids(o.ids ? *o.ids : read_stdin()),
                                 {.skip_special_tokens = !o.keep_special, .keep_invalid_bytes = true});
}

}  // namespace

std::vector<Command> tokenizer_commands() {
  return {
      make_command<TrainTokenizerOptions>(
          {"tokenizer train", "learns a tokenizer from text",
           "Reads every text once and writes a Hugging Face tokenizer folder. The same texts in the same\n"
           "order give the same files.\n\n"
           "  moge tokenizer train --input books/ --vocab-size 4096 --output tokenizer\n"
           "  moge tokenizer train --input books/ --type bpe --style llama3 --output tokenizer\n"},
          train_tokenizer),
      make_command<EncodeOptions>({"tokenizer encode", "turns text into token ids",
                                   "Prints the ids on one line.\n\n"
                                   "  moge tokenizer encode tokenizer \"It was a truth\"\n"
                                   "  moge tokenizer encode tokenizer --json < chapter.txt\n"},
                                  encode),
      make_command<DecodeOptions>(
          {"tokenizer decode", "turns token ids into text",
           "Prints exactly the bytes that the ids stand for, without a newline of its own.\n\n"
           "  moge tokenizer decode tokenizer \"1 450 4996\"\n"
           "  moge tokenizer encode tokenizer < a.txt | moge tokenizer decode tokenizer | cmp a.txt\n"},
          decode)};
}

}  // namespace moge::cli
