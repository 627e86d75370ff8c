// The HTML of a report. Its look is web/report; what is here is structure.
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "sim/report.h"

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
  constexpr std::array kNames{"line", "points", "highlights", "line+points", "bars", "steps", "labels"};
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

/// A piece of the page that is half as wide as it, and about how high.
struct Card {
  std::string html;
  size_t height_px = 0;
};

constexpr size_t kHeadingPx = 110;

/// Of charts with bars in rows the height follows from their number.
Card chart_card(const Chart& chart) {
  const size_t rows = chart.y.categories.size();
  const size_t bars = chart.stacked ? 1 : std::max<size_t>(chart.series.size(), 1);  // in a row
  const size_t height = rows == 0 ? 400 : 130 + rows * (10 + 18 * bars);
  return {str("<section>\n", heading(chart.title, chart.caption), "<div class=\"chart\" id=\"", chart.id,
              "\" style=\"height:", height, "px\"></div>\n</section>\n"),
          height + kHeadingPx};
}

/// Cards in two columns, each put below the shorter one.
std::string columns(const std::vector<Card>& cards) {
  std::array<Card, 2> column;
  for (const Card& card : cards) {
    Card& shorter = column[column[1].height_px < column[0].height_px ? 1 : 0];
    shorter.html += card.html;
    shorter.height_px += card.height_px;
  }
  return str("<div class=\"columns\">\n<div>\n", column[0].html, "</div>\n<div>\n", column[1].html,
             "</div>\n</div>\n");
}

/// Whether a table has room in half the page.
bool is_narrow(const Table& table) {
  size_t letters = 0;  // of the longest row
  for (const std::vector<std::string>& row : table.rows) {
    size_t n = 0;
    for (const std::string& cell : row) n += cell.size();
    letters = std::max(letters, n);
  }
  return table.columns.size() <= 4 && table.rows.size() <= 26 && letters <= 60;
}

std::string table_html(const Table& table) {
  std::vector<bool> numeric(table.columns.size(), !table.rows.empty());
  for (const std::vector<std::string>& row : table.rows) {
    dcheck(row.size() == numeric.size(), table.id, ": a row has ", row.size(), " cells for ", numeric.size(),
           " columns");
    for (size_t c = 0; c < row.size(); ++c) numeric[c] = numeric[c] && (row[c].empty() || is_numeric(row[c]));
  }
  const auto align = [&](size_t column) { return numeric[column] ? " class=\"number\"" : ""; };

  std::string out = str("<section id=\"", table.id, "\">\n", heading(table.title, table.caption),
                        "<div class=\"scroll\"><table>\n<thead><tr>");
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

}  // namespace

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
  constexpr size_t kRowPx = 34;
  std::vector<Card> cards;
  for (const Chart& chart : report.charts) cards.push_back(chart_card(chart));
  for (const Table& table : report.tables)
    if (is_narrow(table)) cards.push_back({table_html(table), kHeadingPx + kRowPx * table.rows.size()});
  page += columns(cards);
  for (const Table& table : report.tables)
    if (!is_narrow(table)) page += table_html(table);
  if (!report.notes.empty()) {
    page += "<section id=\"notes\">\n<h2>Assumptions and limits</h2>\n<ul>\n";
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
