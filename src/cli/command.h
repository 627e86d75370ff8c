// A sub-command: what it is called, what its help teaches, and the function behind it.
#pragma once
#include <functional>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "cli/options.h"

namespace moge::cli {

struct CommandInfo {
  std::string name;     ///< "tokenizer train"
  std::string summary;  ///< one line, for the list of commands
  std::string about;    ///< paragraphs behind the summary; examples that work
};

struct Command {
  CommandInfo info;
  /// `words` follow the command's name. Errors are exceptions (core/error.h).
  std::function<void(std::span<const std::string> words)> main;
};

/// All of a command's help: usage, about, options, exit codes.
std::string command_help(const CommandInfo& info, const std::vector<Option>& options);

/// A command whose options are a struct with options() (cli/options.h).
template <class Options>
Command make_command(const CommandInfo& info, void (*run)(const Options&)) {
  return {info, [info, run](std::span<const std::string> words) {
            Options options;
            if (parse_options(options.options(), words))
              run(options);
            else
              std::cout << command_help(info, options.options());
          }};
}

/// The commands, one function for each file of this folder.
Command train_command();
Command run_command();
Command inspect_command();
Command tune_command();
std::vector<Command> tokenizer_commands();
std::vector<Command> bench_commands();
std::vector<Command> sim_step_commands();
Command sim_calibrate_command();
Command sim_compare_command();
Command bench_sim_command();
Command sim_train_command();
Command search_command();
Command sim_imbalance_command();
Command sim_serve_command();

/// All of them, in the order of the help.
std::vector<Command> all_commands();

/// The command that `words` (argv without the program) begin with, and how many words its name has.
/// UsageError for an unknown one, naming the nearest.
struct FoundCommand {
  Command command;
  size_t name_words;
};
FoundCommand find_command(std::span<const std::string> words);
/// What `moge tokenizer --help` prints: the commands whose first word is `group`. Empty if there are none.
std::string group_help(const std::string& group);
/// What `moge --help` prints.
std::string program_help();

}  // namespace moge::cli
