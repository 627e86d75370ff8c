#include "text/byte_level.h"

#include <cstdio>

#include "text/utf8.h"

namespace moge::text {
namespace {

constexpr bool is_own_character(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> make_alphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte)
    alphabet[static_cast<size_t>(byte)] = is_own_character(byte) ? static_cast<char32_t>(byte) : next++;
  return alphabet;
}

constexpr std::array<char32_t, 256> kAlphabet = make_alphabet();
constexpr char32_t kAlphabetEnd = 0x144;  // 256 - 188 characters from U+0100

constexpr std::array<int16_t, kAlphabetEnd> make_inverse() {
  std::array<int16_t, kAlphabetEnd> inverse{};
  for (int16_t& byte : inverse) byte = -1;
  for (size_t byte = 0; byte < 256; ++byte) inverse[kAlphabet[byte]] = static_cast<int16_t>(byte);
  return inverse;
}

constexpr std::array<int16_t, kAlphabetEnd> kInverse = make_inverse();

}  // namespace

const std::array<char32_t, 256>& byte_level_alphabet() {
  return kAlphabet;
}

std::string byte_level_encode(std::string_view bytes) {
  std::string piece;
  for (const char byte : bytes) append_utf8(kAlphabet[static_cast<uint8_t>(byte)], piece);
  return piece;
}

std::optional<std::string> byte_level_decode(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const Utf8Step step = utf8_step(piece);
    if (!step.valid || step.code_point >= kAlphabetEnd || kInverse[step.code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(kInverse[step.code_point]);
    piece.remove_prefix(static_cast<size_t>(step.length));
  }
  return bytes;
}

std::string byte_token(int byte) {
  char name[8];
  std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
  return name;
}

}  // namespace moge::text
