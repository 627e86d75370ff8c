// tokenizer.json's "pre_tokenizer": cuts text into the pieces that merges never cross. All kinds but two are
// a split by a regular expression; ByteLevel also says that the model spells bytes, Metaspace rewrites
// spaces.
#pragma once
#include <deque>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace moge::text {

// The split patterns of well-known families, as their tokenizer.json files write them.
extern const char* const kGpt2Pattern;
extern const char* const kLlama3Pattern;
extern const char* const kQwen2Pattern;

/// The pieces of a text: views into it, or into `owned` where a step had to change them.
struct Pieces {
  std::vector<std::string_view> views;
  std::deque<std::string> owned;
  bool at_text_start = false;  // the first view begins the whole text (Metaspace's prepend_scheme "first")

  std::string_view own(std::string text) { return owned.emplace_back(std::move(text)); }
};

class PreTokenizer {
 public:
  PreTokenizer() = default;  // one piece: the whole text
  /// ByteLevel, Split, Digits, Metaspace, Punctuation, Whitespace, WhitespaceSplit and Sequence. FileError
  /// names any other type.
  PreTokenizer(const nlohmann::json& json, const std::string& where);

  /// Replaces every piece by its parts.
  void apply(Pieces& pieces, RegexScratch& scratch) const {
    for (const Step& step : steps_) step(pieces, scratch);
  }
  /// Pieces are to be spelled in bytes (the model's vocabulary is in the byte-level alphabet).
  bool byte_level() const { return byte_level_; }

 private:
  using Step = std::function<void(Pieces& pieces, RegexScratch& scratch)>;
  void add(const nlohmann::json& json, const std::string& where, int depth);
  void add_split(const std::string& pattern, const std::string& behavior, bool invert,
                 const std::string& where);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace moge::text
