#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "text/utf8.h"

namespace moge::text {
namespace {

constexpr int kMaxDepth = 16;  // of sequences in sequences

/// Characters that are their own NFC and touch no neighbour: the common scripts, so that most text passes
/// through with one scan. Anything else goes to utf8proc.
bool is_inert_nfc(char32_t c) {
  return c < 0x300 || (c >= 0x400 && c <= 0x482) || (c >= 0x2010 && c <= 0x2027) ||
         (c >= 0x2190 && c <= 0x21FF) || (c >= 0x2500 && c <= 0x27BF) || (c >= 0x3000 && c <= 0x3029) ||
         (c >= 0x3041 && c <= 0x3096) || (c >= 0x30A0 && c <= 0x30FF) || (c >= 0x4E00 && c <= 0x9FFF) ||
         (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xFF01 && c <= 0xFF9D) || (c >= 0x1F300 && c <= 0x1FAFF);
}

bool is_inert_nfc(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (!is_inert_nfc(step.code_point)) return false;
    text.remove_prefix(static_cast<size_t>(step.length));
  }
  return true;
}

void map_with_utf8proc(std::string& text, utf8proc_option_t options) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                             static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(mapped, &std::free);
  check(size >= 0, "Unicode normalisation of ", text.size(), " bytes failed: ", utf8proc_errmsg(size));
  text.assign(reinterpret_cast<const char*>(mapped), static_cast<size_t>(size));
}

template <class Map>
void map_characters(std::string& text, Map&& map) {
  std::string out;
  out.reserve(text.size());
  for (std::string_view rest = text; !rest.empty();) {
    const Utf8Step step = utf8_step(rest);
    map(step.code_point, out);
    rest.remove_prefix(static_cast<size_t>(step.length));
  }
  text = std::move(out);
}

void lowercase(std::string& text) {
  map_characters(text, [](char32_t c, std::string& out) {
    if (c == 0x130) {  // İ, the one character whose lower case is two (SpecialCasing.txt)
      out += "i\u0307";
    } else {
      append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
    }
  });
}

void strip(std::string& text, bool left, bool right) {
  size_t begin = text.size();  // of the first character that stays
  size_t end = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step(std::string_view(text).substr(i));
    const size_t next = i + static_cast<size_t>(step.length);
    if (!is_white_space(step.code_point)) {
      begin = std::min(begin, i);
      end = next;
    }
    i = next;
  }
  if (!right) end = text.size();
  if (!left) begin = 0;
  text = begin < end ? text.substr(begin, end - begin) : std::string();
}

std::string require_text(JsonObject& object, const char* key) {
  return object.require(object.text(key), key);
}

}  // namespace

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  size_t found = text.find(from);
  if (found == std::string::npos || from.empty()) return;
  std::string out;
  size_t done = 0;
  for (; found != std::string::npos; found = text.find(from, done)) {
    out.append(text, done, found - done);
    out += to;
    done = found + from.size();
  }
  out.append(text, done);
  text = std::move(out);
}

Normalizer::Normalizer(const nlohmann::json& json, const std::string& where) {
  add(json, where, 0);
}

void Normalizer::add(const nlohmann::json& json, const std::string& where, int depth) {
  check<FileError>(depth < kMaxDepth, where, ": more than ", kMaxDepth, " nested sequences");
  JsonObject object(json, where);
  const std::string type = require_text(object, "type");
  const auto add_map = [&](int options) {
    steps_.emplace_back([options](std::string& text, RegexScratch&) {
      if ((options & UTF8PROC_COMPAT) == 0 && (options & UTF8PROC_COMPOSE) != 0 && is_inert_nfc(text)) return;
      map_with_utf8proc(text, static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
    });
  };
  if (type == "Sequence") {
    const nlohmann::json* list = object.find("normalizers");
    check<FileError>(list != nullptr && list->is_array(), where,
                     ": Sequence: expected an array \"normalizers\"");
    for (const nlohmann::json& entry : *list) add(entry, where, depth + 1);
  } else if (type == "NFC") {
    add_map(UTF8PROC_COMPOSE);
  } else if (type == "NFD") {
    add_map(UTF8PROC_DECOMPOSE);
  } else if (type == "NFKC") {
    add_map(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
  } else if (type == "NFKD") {
    add_map(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  } else if (type == "Lowercase") {
    steps_.emplace_back([](std::string& text, RegexScratch&) { lowercase(text); });
  } else if (type == "Prepend") {
    steps_.emplace_back([prefix = require_text(object, "prepend")](std::string& text, RegexScratch&) {
      if (!text.empty()) text.insert(0, prefix);
    });
  } else if (type == "Strip") {
    const bool left = object.boolean("strip_left").value_or(true);
    const bool right = object.boolean("strip_right").value_or(true);
    steps_.emplace_back([left, right](std::string& text, RegexScratch&) { strip(text, left, right); });
  } else if (type == "Replace") {
    const nlohmann::json* pattern = object.find("pattern");
    if (pattern == nullptr) object.throw_missing("pattern");
    JsonObject kind(*pattern, where + ": pattern");
    const std::string content = require_text(object, "content");
    if (const auto literal = kind.text("String")) {
      steps_.emplace_back(
          [from = *literal, content](std::string& text, RegexScratch&) { replace_all(text, from, content); });
    } else {
      steps_.emplace_back([regex = Regex(require_text(kind, "Regex"), where), content](
                              std::string& text, RegexScratch& scratch) {
        std::string out;
        regex.for_each_span(text, scratch,
                            [&](std::string_view span, bool is_match) { out += is_match ? content : span; });
        text = std::move(out);
      });
    }
  } else {
    throw FileError(
        str(where, ": normalizer \"", type,
            "\" is not supported (NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, Sequence are)"));
  }
}

}  // namespace moge::text
