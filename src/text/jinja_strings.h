// Python's str methods on UTF-8: positions and lengths count code points, as templates expect.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moge::text::jinja {

int64_t string_length(std::string_view text);
/// The byte offset of a code point index in 0..length.
size_t byte_offset(std::string_view text, int64_t index);
std::vector<std::string_view> characters(std::string_view text);
std::string reverse(std::string_view text);

/// str.isspace of one character.
bool is_space(char32_t c);

enum class Side { kLeft, kRight, kBoth };
/// Drops characters of `set` (white space if absent) from the ends.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> set = {});

/// The first occurrence at or after the byte `from`, or npos. Linear time whatever the needle.
size_t find(std::string_view text, std::string_view needle, size_t from = 0);
size_t rfind(std::string_view text, std::string_view needle);

/// str.count: occurrences that don't overlap; of "", one more than there are characters.
int64_t count(std::string_view text, std::string_view needle);

/// str.split and str.rsplit at white space or at a non-empty separator; max_splits -1: all.
std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator,
                                    int64_t max_splits);
std::vector<std::string_view> rsplit(std::string_view text, std::optional<std::string_view> separator,
                                     int64_t max_splits);
std::vector<std::string_view> split_lines(std::string_view text);

/// str.replace; count -1: all. An empty `from` goes between all characters.
std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t count);

// Unicode's simple case mappings, one character to one, but for upper(ß) = SS; Python has a hundred more
// such.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
/// str.title(): upper case for a letter after none.
std::string title(std::string_view text);
/// The title filter: upper case after white space and ( { [ < -
std::string title_filter(std::string_view text);

/// Whether all of a non-empty text are such characters.
bool all_digits(std::string_view text);
bool all_letters(std::string_view text, bool or_digits);
bool all_space(std::string_view text);
bool has_case(std::string_view text, bool is_upper);  ///< str.isupper, str.islower

/// Python's repr(str): quoted and escaped.
std::string string_repr(std::string_view text);

}  // namespace moge::text::jinja
