// The files that a simulation can leave behind, the same flags for each command of the kind.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "cli/options.h"
#include "sim/report.h"

namespace moge::cli {

struct ReportOptions {
  bool json = false;
  std::filesystem::path html, svg, png, csv;  ///< empty: not wanted

  std::vector<Option> options();
  /// True when a chart or table is wanted, which may take more evaluations than the result alone.
  bool any() const { return !html.empty() || !svg.empty() || !png.empty() || !csv.empty(); }
  /// Writes what is wanted. FileError: share/moge/report lacks a file (the message says what brings it), a
  /// path cannot be written, or the picture cannot be converted to PNG.
  void write(const sim::Report& report, const nlohmann::ordered_json& result) const;
};

}  // namespace moge::cli
