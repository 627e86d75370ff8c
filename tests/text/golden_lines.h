// The lines of tests/golden/tokenizers/lines.bin (tests/golden/make_tokenizer_golden.py).
#pragma once
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"

namespace moge::text {

inline const std::filesystem::path kGoldenTokenizers = MOGE_SOURCE_DIR "/tests/golden/tokenizers";

inline uint32_t take_u32(std::string_view& bytes) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.substr(0, 4).data(), 4);
  bytes.remove_prefix(4);
  return value;
}

inline std::vector<std::string> golden_lines() {
  const std::string file = read_text_file(kGoldenTokenizers / "lines.bin");
  std::vector<std::string> lines;
  for (std::string_view rest = file; !rest.empty();) {
    const uint32_t size = take_u32(rest);
    lines.emplace_back(rest.substr(0, size));
    rest.remove_prefix(size);
  }
  return lines;
}

}  // namespace moge::text
