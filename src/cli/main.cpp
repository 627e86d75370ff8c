// The program. The only place where errors become exit codes.
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>

#include "cli/command.h"
#include "core/error.h"
#include "core/log.h"
#include "ops/op_list.h"

namespace {

using namespace moge;

bool asks_for_help(const std::string& word) {
  return word == "--help" || word == "-h";
}

void run(std::span<const std::string> words) {
  check<UsageError>(!words.empty(), "expected a command; moge --help lists them");
  const std::string group = words.size() > 1 && asks_for_help(words[1]) ? cli::group_help(words[0]) : "";
  if (words[0] == "help" || asks_for_help(words[0])) {
    std::vector<std::string> asked(words.begin() + 1, words.end());
    std::erase_if(asked, asks_for_help);
    if (!asked.empty()) {  // "moge help run" is "moge run --help"
      asked.emplace_back("--help");
      return run(asked);
    }
    std::cout << cli::program_help();
  } else if (!group.empty()) {
    std::cout << group;
  } else if (words[0] == "--version") {
    check<UsageError>(words.size() == 1, "unexpected argument '", words[1], "'");
    std::cout << "moge " MOGE_VERSION "\n";
  } else {
    const cli::FoundCommand found = cli::find_command(words);
    ops::check_environment();
    found.command.main(words.subspan(found.name_words));
  }
  std::cout.flush();
  check<FileError>(std::cout.good(), "standard output: cannot write");
}

int failed(const char* what, ExitCode code) {
  log_error(what);
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> words(argv + 1, argv + argc);
    run(words);
    return static_cast<int>(ExitCode::kOk);
  } catch (const Error& error) {
    return failed(error.what(), error.exit_code);
  } catch (const std::filesystem::filesystem_error& error) {
    return failed(error.what(), ExitCode::kBadFile);
  } catch (const std::bad_alloc&) {
    return failed("out of memory", ExitCode::kOutOfMemory);
  } catch (const std::exception& error) {
    return failed(error.what(), ExitCode::kEngine);
  }
}
