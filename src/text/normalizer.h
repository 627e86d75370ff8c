// tokenizer.json's "normalizer": rewrites text before it is split and encoded.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "text/regex.h"

namespace moge::text {

class Normalizer {
 public:
  Normalizer() = default;  // leaves text as it is
  /// NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip and Sequence. FileError names any other type.
  Normalizer(const nlohmann::json& json, const std::string& where);

  bool empty() const { return steps_.empty(); }
  /// text is valid UTF-8 and stays so.
  void apply(std::string& text, RegexScratch& scratch) const {
    for (const Step& step : steps_) step(text, scratch);
  }

 private:
  using Step = std::function<void(std::string& text, RegexScratch& scratch)>;
  void add(const nlohmann::json& json, const std::string& where, int depth);

  std::vector<Step> steps_;
};

/// Replaces every occurrence of a non-empty string.
void replace_all(std::string& text, std::string_view from, std::string_view to);

}  // namespace moge::text
