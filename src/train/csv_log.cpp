#include "train/csv_log.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "core/error.h"
#include "core/files.h"

namespace moge::train {

CsvLog::CsvLog(const std::filesystem::path& path, const std::vector<std::string>& columns, int64_t first_step)
    : path_(path) {
  std::string header;
  for (const std::string& c : columns) header += (header.empty() ? "" : ",") + c;
  std::string kept = header + "\n";
  if (std::filesystem::exists(path)) {
    std::istringstream old(read_text_file(path));
    std::string line;
    std::getline(old, line);
    check<FileError>(line == header, path.string(), ": another run's log: expected columns ", header,
                     ", got ", line);
    while (std::getline(old, line)) {
      // A full disk may have cut the last row, and "12" of "1234,..." is no row of step 12.
      const bool whole = !old.eof() && std::ranges::count(line, ',') == std::ssize(columns) - 1;
      if (whole && std::strtoll(line.c_str(), nullptr, 10) < first_step) kept += line + "\n";
    }
  }
  atomic_write_file(path, kept);
  file_.reset(std::fopen(path.c_str(), "ab"));
  check<FileError>(file_ != nullptr, path.string(), ": cannot write: ", std::strerror(errno));
}

void CsvLog::row(int64_t step, const std::vector<double>& values) {
  std::string line = str(step);
  for (const double v : values) {
    char number[32];
    std::snprintf(number, sizeof(number), "%.7g", v);
    line += str(",", number);
  }
  line += "\n";
  const bool ok =
      std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size() && std::fflush(file_.get()) == 0;
  check<FileError>(ok, path_.string(), ": cannot write: ", std::strerror(errno));
}

}  // namespace moge::train
