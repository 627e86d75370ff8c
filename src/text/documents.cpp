#include "text/documents.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/checksum.h"
#include "core/error.h"
#include "core/json.h"
#include "text/utf8.h"

namespace moge::text {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kMaxFileBytes = int64_t{4} << 30;

bool is_text_file(const fs::path& path) {
  const fs::path extension = path.extension();
  return extension == ".txt" || extension == ".md" || extension == ".jsonl";
}

/// The part of `rest` before its first newline; `rest` becomes what follows.
std::string_view take_line(std::string_view& rest) {
  const size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

}  // namespace

std::string clean_text(std::string_view text) {
  constexpr std::array<std::string_view, 2> kDropped = {"\xEF\xBB\xBF", "\xE2\x80\x8B"};  // U+FEFF, U+200B
  std::string clean;
  clean.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const std::string_view here = text.substr(i);
    if (here.starts_with(kDropped[0]) || here.starts_with(kDropped[1])) {
      i += 3;
      continue;
    }
    if (!here.starts_with("\r\n")) clean.push_back(here[0]);
    ++i;
  }
  return clean;
}

std::string_view without_book_header(std::string_view text) {
  constexpr std::array<std::string_view, 4> kBegins = {"# ", "## ", "## ", "---"};
  std::string_view rest = text;
  for (const std::string_view begin : kBegins) {
    std::string_view line;
    do line = take_line(rest);
    while (line.empty() && !rest.empty());
    if (!line.starts_with(begin)) return text;
    if (begin == "---" && line.find_first_not_of('-') != std::string_view::npos) return text;
  }
  rest.remove_prefix(std::min(rest.find_first_not_of('\n'), rest.size()));
  return rest;
}

DocumentSource::DocumentSource(const std::vector<fs::path>& paths) {
  for (const fs::path& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    check<FileError>(fs::exists(status), "cannot read text from ", path.string(), ": ", error.message());
    if (!fs::is_directory(status)) {
      files_.push_back({path, path.filename().string()});
      continue;
    }
    const auto first = static_cast<std::ptrdiff_t>(files_.size());
    fs::recursive_directory_iterator entries(path, error);
    for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error))
      if (entries->is_regular_file(error) && is_text_file(entries->path()))
        files_.push_back({entries->path(), entries->path().lexically_relative(path).generic_string()});
    check<FileError>(!error, "cannot read the folder ", path.string(), ": ", error.message());
    std::sort(files_.begin() + first, files_.end(),
              [](const File& a, const File& b) { return a.name < b.name; });
  }
  for (const fs::path& path : paths) paths_ += (paths_.empty() ? "" : ", ") + path.string();
  check<FileError>(
      !files_.empty(), "no text to read in [", paths_,
      "]: expected .txt or .md files (one document each) or .jsonl files (one document a line, in its "
      "\"text\" member)");
}

uint64_t DocumentSource::content_hash() const {
  Checksum hash;
  const auto add = [&](std::span<const std::byte> bytes) {
    const uint64_t size = bytes.size();  // else where one ends and the next begins would not count
    hash.update(std::as_bytes(std::span(&size, 1)));
    hash.update(bytes);
  };
  for (const File& file : files_) {
    add(std::as_bytes(std::span(file.name)));
    add(MappedFile(file.path).bytes());
  }
  return hash.value();
}

bool DocumentSource::next_line(Document& document) {
  const File& file = files_[file_];
  while (!rest_.empty()) {
    ++line_;
    const std::string_view line = take_line(rest_);
    if (is_blank(line)) continue;
    const std::string where = str(file.path.string(), ":", line_);
    const nlohmann::json json = parse_json(line, where);
    JsonObject object(json, where);
    document.text = clean_text(object.require(object.text("text"), "text"));
    document.name = str(file.name, "#", line_);
    if (!is_blank(document.text)) return found_ = true;
  }
  return false;
}

bool DocumentSource::next(Document& document) {
  for (; file_ < files_.size(); ++file_) {
    const File& file = files_[file_];
    if (file.path.extension() == ".jsonl") {
      if (line_ == 0) {
        lines_ = MappedFile(file.path);
        rest_ = {reinterpret_cast<const char*>(lines_.bytes().data()), lines_.bytes().size()};
      }
      if (next_line(document)) return true;
      line_ = 0;
      continue;
    }
    const std::string raw = read_text_file(file.path, kMaxFileBytes);
    check_utf8<FileError>(raw, file.path.string());
    std::string text = clean_text(raw);
    if (file.path.extension() == ".md") text = std::string(without_book_header(text));
    if (is_blank(text)) continue;
    document = {file.name, std::move(text)};
    ++file_;
    return found_ = true;
  }
  check<FileError>(found_, "no text to read in [", paths_, "]: its ", files_.size(),
                   files_.size() == 1 ? " file is" : " files are", " empty");
  return false;
}

}  // namespace moge::text
