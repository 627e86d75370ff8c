// A report: one page of headline numbers, charts and tables, written as a single HTML file that needs no
// network, and its tables as CSV. The style sheet, the script and the plotting library come as texts, because
// finding them is the command line's business.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sim/chart.h"

namespace moge::sim {

/// One headline number.
struct Fact {
  std::string label;
  std::string value;
  std::string unit = "";
  std::string note = "";  ///< small print below it
};

struct Table {
  std::string id;  ///< [a-z-]
  std::string title;
  std::string caption;
  std::vector<std::string> columns;  ///< with their units
  std::vector<std::vector<std::string>> rows;
  std::vector<size_t> marked;  ///< rows that stand out
};

struct Report {
  std::string title;
  std::string subtitle;
  std::vector<Fact> facts;
  std::vector<Chart> charts;
  std::vector<Table> tables;       ///< the first one is the CSV
  std::vector<std::string> notes;  ///< assumptions and limits, one sentence or two each
};

/// What the page is put together from: files of share/moge/report.
struct PageParts {
  std::string style;     ///< report.css
  std::string script;    ///< report.js
  std::string plotting;  ///< plotly.min.js
};

/// The page. `result` is what the command prints with --json; it is kept in the page, for the reader to save.
std::string html_page(const Report& report, const nlohmann::ordered_json& result, const PageParts& parts);

/// RFC 4180, with a header line.
std::string csv(const Table& table);

/// "12,345", "98.7", "0.0123": so many significant digits, but never fewer than the integer part has.
std::string number_text(double value, int significant = 3);
/// "1,234.50": so many decimals, for columns.
std::string fixed_text(double value, int decimals);

}  // namespace moge::sim
