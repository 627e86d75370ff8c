// Plain text in: files and folders of .txt, .md and .jsonl become documents, one a file or one a JSONL line
// (its "text" member).
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"

namespace moge::text {

struct Document {
  std::string name;  ///< path below the given folder (a file: its own name); "#LINE" follows for JSONL
  std::string text;  ///< UTF-8, cleaned, never empty
};

/// Drops U+FEFF and U+200B and turns CR LF into LF.
std::string clean_text(std::string_view text);
/// Drops a book's header: the lines "# Title", "## Author", "## Year" and dashes, and the blank ones around.
std::string_view without_book_header(std::string_view text);

/// Reads one document after the other, in the order of the given paths and of the names inside a folder.
class DocumentSource {
 public:
  /// A path is a file of any name (.jsonl decides how it is read) or a folder, searched recursively.
  /// FileError for a path that does not exist or when there is no file to read.
  explicit DocumentSource(const std::vector<std::filesystem::path>& paths);

  /// False at the end. Empty documents are skipped. FileError names the file, and the line or byte, for
  /// invalid UTF-8, broken JSON or a missing "text", and the paths if all documents were empty.
  bool next(Document& document);

  /// Of all files' names below their folders and contents (XXH64): the same documents have the same.
  uint64_t content_hash() const;
  int64_t num_files() const { return static_cast<int64_t>(files_.size()); }

 private:
  struct File {
    std::filesystem::path path;
    std::string name;
  };
  bool next_line(Document& document);

  std::string paths_;  ///< as they were given, for messages
  std::vector<File> files_;
  size_t file_ = 0;        ///< index of the next file, or of the JSONL file in lines_
  MappedFile lines_;       ///< the JSONL file that is being read
  std::string_view rest_;  ///< what is still to be read of it
  int64_t line_ = 0;
  bool found_ = false;  ///< a document that is not empty
};

}  // namespace moge::text
