// moge run: one answer to a prompt, or a chat on a terminal.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/generation_config.h"
#include "cli/interrupt.h"
#include "cli/json_text.h"
#include "cli/served_model.h"
#include "cli/text_input.h"
#include "core/error.h"
#include "core/log.h"
#include "engine/text_stream.h"
#include "text/utf8.h"

namespace moge::cli {

namespace {

struct RunOptions {
  ModelOptions model;
  std::optional<std::string> prompt;
  std::string system;
  bool raw = false;
  bool echo = false;
  bool token_ids = false;
  std::optional<int64_t> prompt_tokens;
  int64_t max_tokens = 256;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool json = false;

  std::vector<Option> options() {
    return joined(
        model.options(),
        {{.name = "prompt",
          .letter = 'p',
          .target = &prompt,
          .value = "TEXT",
          .help = "What to answer or continue; without it standard input, or a chat if that is a terminal"},
         {.name = "system", .target = &system, .value = "TEXT", .help = "The system message of a chat"},
         {.name = "raw", .target = &raw, .help = "Continue the prompt as it is, without the chat template"},
         {.name = "echo", .target = &echo, .help = "Print the prompt before its continuation"},
         {.name = "token-ids",
          .target = &token_ids,
          .help = "Prompt and output are token ids; no tokenizer is needed"},
         {.name = "prompt-tokens",
          .target = &prompt_tokens,
          .value = "N",
          .help = "Random ids that make the prompt when there is none and weights are random (default: 16)",
          .min = 1},
         {.name = "max-tokens",
          .letter = 'n',
          .target = &max_tokens,
          .value = "N",
          .help = "Stop after N tokens",
          .min = 1},
         {.name = "temperature",
          .target = &temperature,
          .value = "X",
          .help = "0: always the likeliest token. This and the next four default to the model's "
                  "generation_config.json, without one to 0.8, top-p 0.95",
          .min = 0,
          .max = kMaxTemperature},
         {.name = "top-k",
          .target = &top_k,
          .value = "N",
          .help = "Only the N likeliest tokens; 0: all",
          .min = 0},
         {.name = "top-p",
          .target = &top_p,
          .value = "X",
          .help = "Only the likeliest tokens whose probabilities add up to X; 1: all",
          .min = 0,
          .max = 1},
         {.name = "min-p",
          .target = &min_p,
          .value = "X",
          .help = "Only tokens at least X times as likely as the likeliest",
          .min = 0,
          .max = 1},
         {.name = "repetition-penalty",
          .target = &repetition_penalty,
          .value = "X",
          .help = "Above 1: tokens that were there become less likely",
          .min = kMinRepetitionPenalty,
          .max = kMaxRepetitionPenalty},
         {.name = "presence-penalty",
          .target = &presence_penalty,
          .value = "X",
          .help = "Taken from the logits of the tokens that the answer has",
          .min = -2,
          .max = 2},
         {.name = "frequency-penalty",
          .target = &frequency_penalty,
          .value = "X",
          .help = "Taken from a token's logit each time that the answer has it",
          .min = -2,
          .max = 2},
         {.name = "stop", .target = &stop, .value = "TEXT", .help = "End before this text; may be repeated"},
         {.name = "ignore-eos", .target = &ignore_eos, .help = "Go on after the end-of-text token"},
         {.name = "json", .target = &json, .help = "Print one JSON object: text, tokens, rates"}});
  }
};

engine::SamplingParams sampling_params(const RunOptions& o, const GenerationConfig& g) {
  const double usual_temperature = g.do_sample.value_or(true) ? g.temperature.value_or(0.8) : 0.0;
  return {.temperature = o.temperature.value_or(usual_temperature),
          .top_k = o.top_k.value_or(g.top_k.value_or(0)),
          .top_p = o.top_p.value_or(g.top_p.value_or(0.95)),
          .min_p = o.min_p.value_or(g.min_p.value_or(0)),
          .repetition_penalty = o.repetition_penalty.value_or(g.repetition_penalty.value_or(1)),
          .presence_penalty = o.presence_penalty,
          .frequency_penalty = o.frequency_penalty,
          .seed = static_cast<uint64_t>(o.model.seed)};
}

void warn_of_full_context(int64_t context, int64_t largest) {
  if (context < largest)
    log_warning("the context of ", context, " tokens is full; --context takes up to ", largest);
  else
    log_warning("the context of ", context, " tokens, the model's largest, is full");
}

class Runner {
 public:
  explicit Runner(const RunOptions& o) : o_(o), uses_ids_(o.token_ids || o.model.random_weights) {
    if (o.prompt) text::check_utf8<UsageError>(*o.prompt, "--prompt");
    text::check_utf8<UsageError>(o.system, "--system");
    for (const std::string& stop : o.stop) {
      text::check_utf8<UsageError>(stop, "--stop");
      check<UsageError>(!stop.empty(), "--stop: expected a text, got ''");
    }
    check<UsageError>(o.system.empty() || !(o.raw || uses_ids_), "--system is for the chat template, which ",
                      o.raw ? "--raw" : (o.token_ids ? "--token-ids" : "--random-weights"),
                      " leaves out: give one of them");
    check<UsageError>(!o.prompt_tokens || (o.model.random_weights && !o.prompt),
                      "--prompt-tokens is for --random-weights without --prompt");
    // The weights come last: whatever else is wrong is told at once.
    const FoundModel found = find_served_model(o.model);
    const GenerationConfig defaults = load_generation_config(found.dir, found.config.vocab_size);
    params_ = {.sampling = sampling_params(o, defaults), .max_tokens = o.max_tokens};
    if (!uses_ids_) {
      tokenizer_ = text::load_tokenizer(found.dir);
      text::check_vocabulary(*tokenizer_, found.dir, found.config.vocab_size);
      if (!o.raw) conversation_ = Conversation::open(found.dir, *tokenizer_, o.system);
    }
    check<UsageError>(o.system.empty() || conversation_, "--system: the model has no chat template");
    if (!o.ignore_eos) add_stop_ids(defaults, found.config);
    model_.emplace(o.model, found);
  }

  void run() {
    if (o_.prompt || o_.json || uses_ids_ || !stdin_is_terminal())
      answer_once();
    else
      chat();
  }

 private:
  struct Answer {
    std::string text;
    engine::Generation generation;
  };

  void add_stop_ids(const GenerationConfig& defaults, const spec::ModelConfig& config) {
    params_.stop_ids = defaults.eos_token_id;
    for (const int64_t id : config.eos_token_id) params_.stop_ids.push_back(static_cast<int32_t>(id));
    if (tokenizer_ && tokenizer_->special_ids().eos)
      params_.stop_ids.push_back(*tokenizer_->special_ids().eos);
  }

  void answer_once() {
    const std::vector<int32_t> ids = prompt_ids();
    const Answer answer = generate(ids);
    if (o_.json)
      print_json(answer);
    else
      std::cout << std::endl;  // before what follows on standard error
    report(answer.generation);
  }

  /// The prompt of a single answer. Without one, random weights get random ids.
  std::vector<int32_t> prompt_ids() {
    if (o_.model.random_weights && !o_.prompt)
      return random_ids(model_->config(), o_.prompt_tokens.value_or(16), static_cast<uint64_t>(o_.model.seed),
                        1);
    std::string prompt = o_.prompt ? *o_.prompt : read_stdin();
    if (!o_.prompt && prompt.ends_with('\n')) prompt.pop_back();  // the shell's, not the text's
    if (o_.echo && !o_.json) std::cout << prompt << (uses_ids_ ? " " : "") << std::flush;
    return uses_ids_ ? parse_ids(prompt) : encode(prompt);
  }

  /// The next prompt: the conversation with `text` as its last turn, or the text itself.
  std::vector<int32_t> encode(const std::string& text) {
    if (!conversation_) return tokenizer_->encode(text, {.parse_special = o_.raw});
    conversation_->add("user", text);
    return conversation_->prompt();
  }

  Answer generate(const std::vector<int32_t>& ids) {
    Answer answer;
    const auto write = [&](const std::string& piece) {
      answer.text += piece;
      if (!o_.json) std::cout << piece << std::flush;
    };
    const Interrupt interrupt;
    const auto run = [&](const std::function<bool(int32_t)>& on_token) {
      answer.generation = model_->generator().generate(ids, params_, on_token, interrupt.requested());
    };
    if (uses_ids_) {
      run([&](int32_t id) {
        if (!answer.text.empty()) write(" ");
        write(std::to_string(id));
        return true;
      });
    } else {
      const std::span<const int32_t> continued = conversation_ ? std::span<const int32_t>() : ids;
      engine::TextStream stream(*tokenizer_, o_.stop, continued);
      run([&](int32_t id) {
        if (std::ranges::count(params_.stop_ids, id) == 0) write(stream.push(id));
        return !stream.stopped();
      });
      write(stream.finish());
    }
    return answer;
  }

  void chat() {
    std::cerr << (conversation_ ? "Chat" : "This model has no chat template: it continues each line")
              << ". Ctrl-C stops an answer; /help lists the commands.\n";
    for (std::string line; read_line(line);) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      if (line == "/exit") return;
      if (line[0] == '/')
        command(line);
      else if (text::utf8_valid_prefix(line) < line.size())
        log_error("expected UTF-8: the line is left out");
      else
        talk(line);
    }
    std::cerr << '\n';
  }

  static bool read_line(std::string& line) {
    std::cerr << "> " << std::flush;
    return static_cast<bool>(std::getline(std::cin, line));
  }

  void command(const std::string& line) {
    if (line == "/reset" && conversation_)
      conversation_->reset();
    else if (line == "/reset" || line == "/help")
      std::cerr << "/reset begins anew, /exit (or Ctrl-D) ends; anything else is said to the model.\n";
    else
      std::cerr << "unknown command " << line << "; /help lists them\n";
  }

  /// A turn that cannot be answered is taken back, and the chat goes on.
  void talk(const std::string& line) {
    try {
      const Answer answer = generate(encode(line));
      std::cout << std::endl;
      report(answer.generation);
      if (conversation_) conversation_->add("assistant", answer.text);
      ++params_.sampling.seed;  // or the same question would get the same draws
    } catch (const RequestError& error) {
      log_error(error.what(), "; /reset begins anew");
      if (conversation_) conversation_->drop_last();
    }
  }

  void report(const engine::Generation& g) {
    log_info("[prompt ", g.prompt_tokens, " tokens, ", g.cached_tokens, " of them cached, ",
             rounded(g.prefill_tokens_per_second(), 1), " tokens/s; answer ", g.tokens.size(), " tokens, ",
             rounded(g.decode_tokens_per_second(), 1), " tokens/s, ",
             rounded(g.decode_bytes_per_second() * 1e-9, 2), " GB/s; ", engine::name_of(g.finish), "]");
    if (g.finish == engine::Finish::kContextFull)
      warn_of_full_context(model_->generator().sequence().context(),
                           model_->config().max_position_embeddings);
  }

  void print_json(const Answer& answer) {
    const engine::Generation& g = answer.generation;
    RunOptions options = o_;
    nlohmann::ordered_json out = {
        {"text", answer.text},
        {"tokens", g.tokens},
        {"finish", engine::name_of(g.finish)},
        {"prompt_tokens", g.prompt_tokens},
        {"prefill_seconds", g.prefill_seconds},
        {"prefill_tokens_per_second", g.prefill_tokens_per_second()},
        {"decode_seconds", g.decode_seconds},
        {"decode_tokens_per_second", g.decode_tokens_per_second()},
        {"decode_bytes_per_second", g.decode_bytes_per_second()},
        {"memory_bytes", model_->generator().sequence().memory_bytes()},
        {"options", nlohmann::ordered_json::parse(options_json(options.options()))}};
    cli::print_json(out);
  }

  const RunOptions o_;
  const bool uses_ids_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::optional<Conversation> conversation_;
  engine::GenerationParams params_;
  std::optional<ServedModel> model_;  // always there once constructed
};

void run_model(const RunOptions& o) {
  Runner(o).run();
}

}  // namespace

Command run_command() {
  return make_command<RunOptions>(
      {"run", "answers a prompt, or chats on a terminal",
       "A model with a chat template answers; one without continues the text. Text goes to standard output\n"
       "as it is made, rates go to standard error. On a terminal without a prompt it is a chat: Ctrl-C "
       "stops\n"
       "an answer, /reset begins anew, /exit ends.\n\n"
       "  moge run build/demo/moge/model -p \"She had never\" --max-tokens 80 --seed 1\n"
       "  echo \"The carriage\" | moge run build/demo/moge/model --json\n"
       "  moge run dense-500m --random-weights --max-tokens 64\n"},
      run_model);
}

}  // namespace moge::cli
