// The run's numbers as CSV, one row a step. A resumed run drops the rows past its checkpoint first, so the
// file is that of an uninterrupted run.
#pragma once
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace moge::train {

class CsvLog {
 public:
  /// Opens or creates; keeps the rows whose first column is below `first_step`. FileError.
  CsvLog(const std::filesystem::path& path, const std::vector<std::string>& columns, int64_t first_step);
  /// `values` after the step, as many as the columns but one.
  void row(int64_t step, const std::vector<double>& values);

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace moge::train
