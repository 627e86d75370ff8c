// What a command reads from its user: standard input, ids as text.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moge::cli {

/// All of standard input. FileError if it is not UTF-8.
std::string read_stdin();
bool stdin_is_terminal();

/// Token ids written in decimal, separated by white space, commas or brackets ("1 2", "[1, 2]"). UsageError
/// for anything else.
std::vector<int32_t> parse_ids(std::string_view text);
/// "1 2 3".
std::string format_ids(const std::vector<int32_t>& ids);

}  // namespace moge::cli
