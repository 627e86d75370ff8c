// GPT-2's byte-level alphabet: every byte has a printable character, so that a vocabulary of bytes is a
// readable JSON file ("Ġthe" is " the").
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace moge::text {

/// The character of each byte: itself where printable and not a space, else U+0100 upwards.
const std::array<char32_t, 256>& byte_level_alphabet();

/// Bytes in the alphabet, and back. decode is nullopt when some character is not of the alphabet.
std::string byte_level_encode(std::string_view bytes);
std::optional<std::string> byte_level_decode(std::string_view piece);

/// The other way to spell a byte, as a token of its own that stands for it: "<0xE4>".
std::string byte_token(int byte);

}  // namespace moge::text
