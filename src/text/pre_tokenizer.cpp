#include "text/pre_tokenizer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "text/normalizer.h"

namespace moge::text {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

constexpr int kMaxDepth = 16;  // of sequences in sequences

/// What becomes of the matches of a split (Hugging Face's SplitDelimiterBehavior).
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior parse_behavior(const std::string& name, const std::string& where) {
  constexpr std::pair<const char*, Behavior> kNames[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  for (const auto& [known, behavior] : kNames)
    if (name == known) return behavior;
  throw FileError(str(where, ": split behavior \"", name, "\" is not supported"));
}

/// Collects the parts of one piece. Spans come in order and touch each other, so merging is widening a view.
class Splitter {
 public:
  Splitter(Behavior behavior, std::vector<std::string_view>& out)
      : behavior_(behavior), first_(out.size()), out_(out) {}

  void add(std::string_view span, bool is_match) {
    const bool has_previous = out_.size() > first_;
    bool join = false;
    switch (behavior_) {
      case Behavior::kRemoved:
        if (is_match) return;
        break;
      case Behavior::kIsolated:
        break;
      case Behavior::kMergedWithPrevious:
        join = has_previous && is_match && !previous_is_match_;
        break;
      case Behavior::kMergedWithNext:
        join = has_previous && !is_match && previous_is_match_;
        break;
      case Behavior::kContiguous:
        join = has_previous && is_match == previous_is_match_;
        break;
    }
    if (join) {
      out_.back() = {out_.back().data(), out_.back().size() + span.size()};
    } else {
      out_.push_back(span);
    }
    previous_is_match_ = is_match;
  }

 private:
  Behavior behavior_;
  size_t first_;
  std::vector<std::string_view>& out_;
  bool previous_is_match_ = false;
};

/// Escapes a literal for a regular expression.
std::string quote(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    if (static_cast<uint8_t>(c) < 0x80 && std::isalnum(static_cast<uint8_t>(c)) == 0 && c != '\0')
      pattern += '\\';
    pattern += c;
  }
  return pattern;
}

void metaspace(Pieces& pieces, const std::string& replacement, const std::string& prepend_scheme) {
  for (size_t i = 0; i < pieces.views.size(); ++i) {
    std::string text(pieces.views[i]);
    replace_all(text, " ", replacement);
    const bool prepend =
        prepend_scheme == "always" || (prepend_scheme == "first" && i == 0 && pieces.at_text_start);
    if (prepend && !text.starts_with(replacement)) text.insert(0, replacement);
    pieces.views[i] = pieces.own(std::move(text));
  }
}

void prefix_space(Pieces& pieces) {
  for (std::string_view& view : pieces.views)
    if (!view.starts_with(' ')) view = pieces.own(str(' ', view));
}

}  // namespace

PreTokenizer::PreTokenizer(const nlohmann::json& json, const std::string& where) {
  add(json, where, 0);
}

void PreTokenizer::add_split(const std::string& pattern, const std::string& behavior_name, bool invert,
                             const std::string& where) {
  steps_.emplace_back([regex = Regex(pattern, where), behavior = parse_behavior(behavior_name, where),
                       invert](Pieces& pieces, RegexScratch& scratch) {
    const std::vector<std::string_view> views = std::exchange(pieces.views, {});
    for (const std::string_view view : views) {
      Splitter splitter(behavior, pieces.views);
      regex.for_each_span(view, scratch, [&](std::string_view span, bool is_match) {
        splitter.add(span, is_match != invert);
      });
    }
  });
}

void PreTokenizer::add(const nlohmann::json& json, const std::string& where, int depth) {
  check<FileError>(depth < kMaxDepth, where, ": more than ", kMaxDepth, " nested sequences");
  check<FileError>(!byte_level_, where, ": a step after ByteLevel is not supported");
  JsonObject object(json, where);
  const std::string type = object.require(object.text("type"), "type");
  if (type == "Sequence") {
    const nlohmann::json* list = object.find("pretokenizers");
    check<FileError>(list != nullptr && list->is_array(), where,
                     ": Sequence: expected an array \"pretokenizers\"");
    for (const nlohmann::json& entry : *list) add(entry, where, depth + 1);
  } else if (type == "ByteLevel") {
    if (object.boolean("add_prefix_space").value_or(true))
      steps_.emplace_back([](Pieces& pieces, RegexScratch&) { prefix_space(pieces); });
    if (object.boolean("use_regex").value_or(true)) add_split(kGpt2Pattern, "Isolated", false, where);
    byte_level_ = true;
  } else if (type == "Split") {
    const nlohmann::json* pattern = object.find("pattern");
    if (pattern == nullptr) object.throw_missing("pattern");
    JsonObject kind(*pattern, where + ": pattern");
    const auto literal = kind.text("String");
    add_split(literal ? quote(*literal) : kind.require(kind.text("Regex"), "Regex"),
              object.require(object.text("behavior"), "behavior"), object.boolean("invert").value_or(false),
              where);
  } else if (type == "Digits") {
    const bool individual = object.boolean("individual_digits").value_or(false);
    add_split(individual ? R"(\p{N})" : R"(\p{N}+)", "Isolated", false, where);
  } else if (type == "Punctuation") {
    add_split(R"([\p{P}$+<=>^`|~])", object.text("behavior").value_or("Isolated"), false, where);
  } else if (type == "Whitespace") {
    add_split(R"([\w\x{200c}\x{200d}]+|[^\w\s\x{200c}\x{200d}]+)", "Removed", true, where);
  } else if (type == "WhitespaceSplit") {
    add_split(R"(\s)", "Removed", false, where);
  } else if (type == "Metaspace") {
    const std::string replacement = object.text("replacement").value_or("\u2581");
    const bool add_prefix =
        object.boolean("add_prefix_space").value_or(true);  // before prepend_scheme existed
    const std::string scheme = object.text("prepend_scheme").value_or(add_prefix ? "always" : "never");
    check<FileError>(scheme == "always" || scheme == "first" || scheme == "never", where,
                     ": prepend_scheme \"", scheme, "\" is not supported");
    check<FileError>(!replacement.empty(), where, ": Metaspace: empty replacement");
    steps_.emplace_back(
        [replacement, scheme](Pieces& pieces, RegexScratch&) { metaspace(pieces, replacement, scheme); });
    if (object.boolean("split").value_or(true)) add_split(quote(replacement), "MergedWithNext", false, where);
  } else {
    throw FileError(str(where, ": pre-tokenizer \"", type,
                        "\" is not supported (ByteLevel, Split, Digits, Metaspace, Punctuation, Whitespace, "
                        "WhitespaceSplit, Sequence are)"));
  }
}

}  // namespace moge::text
