#include "cli/command.h"

#include <algorithm>

#include "cli/config_path.h"
#include "core/error.h"
#include "core/nearest.h"

namespace moge::cli {

namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 fine, 2 usage, 3 bad model or file, 4 out of memory, 5 device or engine failure.\n";

size_t word_count(const std::string& name) {
  return 1 + static_cast<size_t>(std::count(name.begin(), name.end(), ' '));
}

/// The first `n` words with single spaces between them.
std::string joined(std::span<const std::string> words, size_t n) {
  std::string text;
  for (const std::string& word : words.first(std::min(n, words.size())))
    text += (text.empty() ? "" : " ") + word;
  return text;
}

/// "a, b, c"
std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// A line for each command whose name begins with `prefix`.
std::string command_lines(const std::string& prefix) {
  std::string text;
  for (const Command& c : all_commands()) {
    if (!c.info.name.starts_with(prefix)) continue;
    std::string line = "  " + c.info.name;
    line.resize(std::max<size_t>(line.size() + 2, 22), ' ');
    text += line + c.info.summary + "\n";
  }
  return text;
}

}  // namespace

std::string command_help(const CommandInfo& info, const std::vector<Option>& options) {
  return str("moge ", info.name, ": ", info.summary, "\n\nUsage: moge ", info.name, synopsis(options), "\n\n",
             info.about, "\n", options_help(options),
             "\nEvery flag has an environment twin (--max-tokens: MOGE_MAX_TOKENS); the flag wins.\n",
             kExitCodes);
}

std::vector<Command> all_commands() {
  std::vector<Command> all{train_command(), run_command(), inspect_command()};
  for (const Command& c : tokenizer_commands()) all.push_back(c);
  for (const Command& c : bench_commands()) all.push_back(c);
  all.push_back(tune_command());
  all.push_back(bench_sim_command());
  for (const Command& c : sim_step_commands()) all.push_back(c);
  all.push_back(sim_train_command());
  all.push_back(sim_calibrate_command());
  all.push_back(sim_compare_command());
  all.push_back(search_command());
  all.push_back(sim_imbalance_command());
  all.push_back(sim_serve_command());
  return all;
}

FoundCommand find_command(std::span<const std::string> words) {
  std::vector<std::string> names;
  std::string family;  // the commands whose first word this is: "tokenizer train, tokenizer encode"
  for (const Command& c : all_commands()) {
    const size_t n = word_count(c.info.name);
    if (joined(words, n) == c.info.name) return {c, n};
    names.push_back(c.info.name);
    if (n > 1 && c.info.name.starts_with(words[0] + " "))
      family += (family.empty() ? "" : ", ") + c.info.name;
  }
  if (!family.empty()) {
    check<UsageError>(words.size() > 1 && !words[1].starts_with("-"), "'", words[0],
                      "' needs another word: ", family);
    throw UsageError(str("unknown command '", joined(words, 2), "'", did_you_mean(joined(words, 2), names),
                         " Commands: ", family));
  }
  throw UsageError(str("unknown command '", words[0], "'", did_you_mean(words[0], names)));
}

std::string group_help(const std::string& group) {
  const std::string lines = command_lines(group + " ");
  if (lines.empty()) return "";
  return "Commands:\n" + lines + "\nmoge " + group +
         " COMMAND --help explains one of them, with examples.\n" + kExitCodes;
}

std::string program_help() {
  return "moge trains, runs and sizes Mixture-of-Grouped-Experts language models.\n\n"
         "Usage: moge COMMAND [arguments and flags]\n\nCommands:\n" +
         command_lines("") +
         "\nmoge COMMAND --help explains one of them, with examples; moge --version prints the version.\n"
         "MODEL is a Hugging Face directory or the name of a config under configs/models, for example\n\n"
         "  moge inspect pangu-pro-moe-72b-a16b\n\n"
         "Configs: " +
         listed(config_names("models")) + "\n\n" + kExitCodes;
}

}  // namespace moge::cli
