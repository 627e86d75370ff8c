#include "cli/text_input.h"

#include <unistd.h>

#include <charconv>
#include <iostream>
#include <iterator>

#include "core/error.h"
#include "text/utf8.h"

namespace moge::cli {

std::string read_stdin() {
  std::string all{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  text::check_utf8<FileError>(all, "standard input");
  return all;
}

bool stdin_is_terminal() {
  return ::isatty(STDIN_FILENO) == 1;
}

std::vector<int32_t> parse_ids(std::string_view text) {
  constexpr std::string_view kSeparators = " \t\r\n,[]";
  std::vector<int32_t> ids;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kSeparators), text.size()));
    if (text.empty()) return ids;
    const std::string_view word = text.substr(0, text.find_first_of(kSeparators));
    int32_t id = 0;
    const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    check<UsageError>(error == std::errc{} && rest == word.data() + word.size() && id >= 0,
                      "expected token ids, got '", word, "'");
    ids.push_back(id);
    text.remove_prefix(word.size());
  }
}

std::string format_ids(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    if (!text.empty()) text += ' ';
    text += std::to_string(id);
  }
  return text;
}

}  // namespace moge::cli
