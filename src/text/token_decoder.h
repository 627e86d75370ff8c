// tokenizer.json's "decoder", reduced to what each token contributes: bytes, and whether its first space may
// go.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "text/detokenizer.h"

namespace moge::text {

class TokenDecoder {
 public:
  /// ByteLevel, Replace (of a string), ByteFallback, Metaspace, Fuse, Strip (one space at the start, after
  /// Fuse) and Sequence. FileError names any other type.
  TokenDecoder(const nlohmann::json& json, const std::string& where);

  Detokenizer::Token decode(const std::string& piece, bool special) const;
  Detokenizer::FirstSpace first_space() const { return first_space_; }
  /// Where a run of <0xXX> tokens is partly invalid, its valid characters survive; `tokenizers` replaces them
  /// all.
  Detokenizer::InvalidUtf8 invalid_utf8() const { return invalid_utf8_; }

 private:
  using Step = std::function<void(std::string& piece)>;
  void add(const nlohmann::json& json, const std::string& where, int depth);

  std::vector<Step> steps_;
  std::optional<std::string> metaspace_;  // what Metaspace writes for a space: only that goes at the start
  bool fused_ = false;
  Detokenizer::FirstSpace first_space_ = Detokenizer::FirstSpace::kKeep;
  Detokenizer::InvalidUtf8 invalid_utf8_ = Detokenizer::InvalidUtf8::kPerSequence;
};

}  // namespace moge::text
