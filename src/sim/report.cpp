#include "sim/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

/// JSON for a script element: no "</script>" or "<!--" can appear in it.
std::string script_json(const ordered_json& value) {
  std::string out;
  for (const char c : value.dump(-1, ' ', false, ordered_json::error_handler_t::replace))
    c == '<' ? out += "\\u003c" : out += c;
  return out;
}

const char* name_of(Colour colour) {
  constexpr std::array kNames{"series",   "compute", "memory", "vector", "network",
                              "overhead", "good",    "bad",    "quiet"};
  return kNames[static_cast<size_t>(colour)];
}

const char* name_of(Mark mark) {
  constexpr std::array kNames{"line", "points", "line+points", "bars", "steps", "labels"};
  return kNames[static_cast<size_t>(mark)];
}

ordered_json to_json(const Axis& axis) {
  ordered_json out = {{"title", axis.title}, {"log", axis.log}, {"categories", axis.categories}};
  if (axis.min) out["min"] = *axis.min;
  if (axis.max) out["max"] = *axis.max;
  return out;
}

/// What report.js turns into a figure.
ordered_json to_json(const Chart& chart) {
  ordered_json series = ordered_json::array();
  for (const Series& s : chart.series) {
    dcheck(s.x.size() == s.y.size() && (s.notes.empty() || s.notes.size() == s.x.size()), chart.id, ": ",
           s.name);
    const auto finite = [](double v) { return std::isfinite(v); };
    dcheck(std::ranges::all_of(s.x, finite) && std::ranges::all_of(s.y, finite), chart.id, ": ", s.name,
           " has a value that is not finite");
    series.push_back({{"name", s.name},
                      {"mark", name_of(s.mark)},
                      {"x", s.x},
                      {"y", s.y},
                      {"notes", s.notes},
                      {"colour", name_of(s.colour)},
                      {"dashed", s.dashed},
                      {"labelled", s.labelled}});
  }
  ordered_json guides = ordered_json::array();
  for (const Guide& g : chart.guides)
    guides.push_back({{"label", g.label}, {"value", g.value}, {"vertical", g.vertical}});
  return {{"id", chart.id},        {"title", chart.title},     {"x", to_json(chart.x)},
          {"y", to_json(chart.y)}, {"stacked", chart.stacked}, {"series", series},
          {"guides", guides}};
}

/// Columns of such cells are aligned to the right.
bool is_numeric(const std::string& cell) {
  return !cell.empty() && cell.find_first_not_of("0123456789.,+-%e ") == std::string::npos &&
         cell.find_first_of("0123456789") != std::string::npos;
}

std::string facts_html(const std::vector<Fact>& facts) {
  std::string out = "<dl class=\"facts\">\n";
  for (const Fact& f : facts) {
    out += str("<div><dt>", escaped(f.label), "</dt><dd>", escaped(f.value));
    if (!f.unit.empty()) out += str(" <span class=\"unit\">", escaped(f.unit), "</span>");
    if (!f.note.empty()) out += str("<small>", escaped(f.note), "</small>");
    out += "</dd></div>\n";
  }
  return out + "</dl>\n";
}

std::string heading(const std::string& title, const std::string& caption) {
  std::string out = str("<h2>", escaped(title), "</h2>\n");
  if (!caption.empty()) out += str("<p class=\"caption\">", escaped(caption), "</p>\n");
  return out;
}

/// Of charts with bars in rows the height follows from their number; long ones span two rows of the page.
std::string chart_html(const Chart& chart) {
  constexpr size_t kManyRows = 15;
  const size_t rows = chart.y.categories.size();
  const size_t bars = chart.stacked ? 1 : std::max<size_t>(chart.series.size(), 1);  // in a row
  const std::string height = rows == 0 ? "" : str(" style=\"height:", 130 + rows * (10 + 18 * bars), "px\"");
  return str("<section class=\"", rows >= kManyRows ? "half tall" : "half", "\">\n",
             heading(chart.title, chart.caption), "<div class=\"chart\" id=\"", chart.id, "\"", height,
             "></div>\n</section>\n");
}

std::string table_html(const Table& table) {
  const bool small = table.columns.size() <= 4 && table.rows.size() <= 16;
  std::vector<bool> numeric(table.columns.size(), !table.rows.empty());
  for (const std::vector<std::string>& row : table.rows) {
    dcheck(row.size() == numeric.size(), table.id, ": a row has ", row.size(), " cells for ", numeric.size(),
           " columns");
    for (size_t c = 0; c < row.size(); ++c) numeric[c] = numeric[c] && (row[c].empty() || is_numeric(row[c]));
  }
  const auto align = [&](size_t column) { return numeric[column] ? " class=\"number\"" : ""; };

  std::string out = str("<section class=\"", small ? "half" : "wide", "\" id=\"", table.id, "\">\n",
                        heading(table.title, table.caption), "<div class=\"scroll\"><table>\n<thead><tr>");
  for (size_t c = 0; c < table.columns.size(); ++c)
    out += str("<th scope=\"col\"", align(c), ">", escaped(table.columns[c]), "</th>");
  out += "</tr></thead>\n<tbody>\n";
  for (size_t r = 0; r < table.rows.size(); ++r) {
    const bool marked = std::ranges::find(table.marked, r) != table.marked.end();
    out += marked ? "<tr class=\"marked\">" : "<tr>";
    for (size_t c = 0; c < table.columns.size(); ++c)
      out += str("<td", align(c), ">", escaped(table.rows[r][c]), "</td>");
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n</section>\n";
}

std::string csv_cell(const std::string& cell) {
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string out;
  for (const char c : cell) out.append(c == '"' ? 2 : 1, c);
  return str('"', out, '"');
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string out;
  for (const std::string& cell : cells) out += str(&cell == cells.data() ? "" : ",", csv_cell(cell));
  return out + "\r\n";
}

}  // namespace

std::string number_text(double value, int significant) {
  if (value == 0) return "0";
  const double size = std::abs(value);
  if (size < 1e-4 || size >= 1e15) {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), "%.*e", significant - 1, value);
    return text.data();
  }
  const int whole_digits = static_cast<int>(std::floor(std::log10(size))) + 1;  // <= 0 below 1
  return fixed_text(value, std::clamp(significant - whole_digits, 0, 8));
}

std::string fixed_text(double value, int decimals) {
  std::array<char, 340> buffer{};  // the largest double has 309 digits
  std::snprintf(buffer.data(), buffer.size(), "%.*f", std::clamp(decimals, 0, 20), value);
  std::string text = buffer.data();
  const size_t first_digit = text[0] == '-' ? 1 : 0;
  for (size_t at = std::min(text.find('.'), text.size()); at > first_digit + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string csv(const Table& table) {
  std::string out = csv_line(table.columns);
  for (const std::vector<std::string>& row : table.rows) out += csv_line(row);
  return out;
}

std::string html_page(const Report& report, const ordered_json& result, const PageParts& parts) {
  check<FileError>(parts.plotting.find("</script") == std::string::npos,
                   "the plotting library contains </script and cannot be embedded");
  ordered_json charts = ordered_json::array();
  for (const Chart& chart : report.charts) charts.push_back(to_json(chart));

  const std::string title = escaped(report.title);
  // The policy makes a promise of "works offline": the browser refuses any fetch.
  std::string page =
      str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src "
          "'unsafe-inline'; "
          "style-src 'unsafe-inline'; img-src data: blob:\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n<title>",
          title, "</title>\n<style>\n", parts.style, "</style>\n</head>\n<body>\n<header>\n<div>\n<h1>",
          title, "</h1>\n<p>", escaped(report.subtitle),
          "</p>\n</div>\n<nav><button id=\"save\">Save the numbers (JSON)</button>"
          "<button id=\"theme\">Dark</button></nav>\n</header>\n<main>\n",
          facts_html(report.facts));
  for (const Chart& chart : report.charts) page += chart_html(chart);
  for (const Table& table : report.tables) page += table_html(table);
  if (!report.notes.empty()) {
    page += "<section class=\"wide\" id=\"notes\">\n<h2>Assumptions and limits</h2>\n<ul>\n";
    for (const std::string& note : report.notes) page += str("<li>", escaped(note), "</li>\n");
    page += "</ul>\n</section>\n";
  }
  page += str("</main>\n<footer>Written by moge. Charts: plotly.js (MIT licence).</footer>\n",
              "<script type=\"application/json\" id=\"result\">", script_json(result), "</script>\n",
              "<script type=\"application/json\" id=\"charts\">", script_json(charts), "</script>\n<script>",
              parts.plotting, "</script>\n<script>\n", parts.script, "</script>\n</body>\n</html>\n");
  return page;
}

}  // namespace moge::sim
