#include "sim/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <optional>
#include <sstream>

#include "core/str.h"

namespace moge::sim {
namespace {

constexpr double kWidth = 900;
constexpr double kPlotHeight = 300;
constexpr double kBarRow = 24;  // of horizontal bars
constexpr double kFontSize = 13;
constexpr double kLetter = 7.2;  // the mean width of a letter of that size
constexpr const char* kInk = "#1b2330";
constexpr const char* kSoft = "#5a6576";
constexpr const char* kRule = "#dfe3ea";

/// The light half of web/report/report.css.
const char* paint(Colour colour, size_t series) {
  constexpr std::array kSeriesColours{"#2f6fde", "#e0751a", "#14937c", "#8e57d1",
                                      "#cf3f4f", "#6d7d18", "#b0478f", "#46607f"};
  switch (colour) {
    case Colour::kSeries:
      return kSeriesColours[series % kSeriesColours.size()];
    case Colour::kCompute:
      return "#2f6fde";
    case Colour::kMemory:
      return "#e0751a";
    case Colour::kVector:
      return "#8e57d1";
    case Colour::kNetwork:
      return "#14937c";
    case Colour::kOverhead:
      return "#8a94a6";
    case Colour::kGood:
      return "#14937c";
    case Colour::kBad:
      return "#cf3f4f";
    case Colour::kQuiet:
      return "#b3bac6";
  }
  return kInk;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text)
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

/// The number of characters of UTF-8 text.
double letters(const std::string& text) {
  return static_cast<double>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string tick_text(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", value);
  return text.data();
}

/// Maps values of one axis to positions.
struct Scale {
  double low = 0, high = 1;   // of values; of their logarithms on a log axis
  double start = 0, end = 1;  // positions
  bool log = false;

  double operator()(double value) const {
    const double v = log ? std::log10(value) : value;
    return start + (v - low) / (high - low) * (end - start);
  }
};

bool labels_beside_bars(const Chart& chart) {
  return chart.y.categories.size() > 1 && std::ranges::any_of(chart.series, &Series::labelled);
}

/// Whether values lie on x or on y, of a point's index i.
using Values = std::vector<double> Series::*;

Scale fit(const Chart& chart, const Axis& axis, Values values, bool vertical_guides) {
  if (!axis.categories.empty()) return {-0.5, static_cast<double>(axis.categories.size()) - 0.5};
  double low = std::numeric_limits<double>::infinity(), high = -low;
  const auto see = [&](double v) { low = std::min(low, v), high = std::max(high, v); };
  std::map<double, double> sums;  // of stacked bars, by place
  const bool horizontal = !chart.y.categories.empty();
  const bool bars_grow = horizontal == (values == &Series::x);  // along this axis
  const Values places = values == &Series::x ? &Series::y : &Series::x;
  for (const Series& s : chart.series) {
    for (const double v : s.*values) see(v);
    if (!chart.stacked || s.mark != Mark::kBars || !bars_grow) continue;
    for (size_t i = 0; i < (s.*values).size(); ++i) see(sums[(s.*places)[i]] += (s.*values)[i]);
  }
  for (const Guide& g : chart.guides)
    if (g.vertical == vertical_guides) see(g.value);
  const bool bars = std::ranges::any_of(chart.series, [](const Series& s) { return s.mark == Mark::kBars; });
  if (bars && bars_grow && !axis.log) see(0);
  if (!(low <= high)) low = high = axis.log ? 1 : 0;
  if (axis.min) low = *axis.min;
  if (axis.max) high = *axis.max;
  Scale scale{axis.log ? std::log10(low) : low, axis.log ? std::log10(high) : high, 0, 1, axis.log};
  if (scale.high <= scale.low) scale.low -= 0.5, scale.high += 0.5;
  const double margin = 0.04 * (scale.high - scale.low);
  const double label_margin = labels_beside_bars(chart) && horizontal ? 6 * margin : margin;
  if (!axis.min && (axis.log || low != 0)) scale.low -= label_margin;
  if (!axis.max) scale.high += label_margin;
  return scale;
}

class Drawing {
 public:
  Drawing(std::ostringstream& out, const Chart& chart, double top) : out_(out), chart_(chart), top_(top) {}

  /// Returns the height.
  double draw() {
    layout();
    text(16, top_ + 26, chart_.title, "start", kInk, "font-weight=\"600\" font-size=\"16\"");
    legend();
    axes();
    for (size_t i = 0; i < chart_.series.size(); ++i) series(chart_.series[i], i);
    for (const Guide& g : chart_.guides) guide(g);
    return bottom_ + 60 - top_;
  }

 private:
  bool horizontal() const { return !chart_.y.categories.empty(); }

  void layout() {
    double label = 0;
    if (horizontal())
      for (const std::string& c : chart_.y.categories) label = std::max(label, letters(c));
    x_ = fit(chart_, chart_.x, &Series::x, true);
    y_ = fit(chart_, chart_.y, &Series::y, false);
    x_.start = horizontal() ? std::min(24 + kLetter * label, kWidth / 2) : 78;
    x_.end = kWidth - 24;
    const double rows = static_cast<double>(chart_.y.categories.size()) * (0.4 + 0.6 * bar_group(0).second);
    const double height = horizontal() ? kBarRow * rows : kPlotHeight;
    const double above = 62 + 20 * static_cast<double>(legend_rows() - 1);
    ceiling_ = top_ + above;
    bottom_ = ceiling_ + height;
    y_.start = horizontal() ? ceiling_ : bottom_;  // the first category stands on top
    y_.end = horizontal() ? bottom_ : ceiling_;
  }

  double legend_width(const Series& s) const { return 40 + kLetter * letters(s.name); }
  std::vector<const Series*> named() const {
    std::vector<const Series*> out;
    for (const Series& s : chart_.series)
      if (!s.name.empty()) out.push_back(&s);
    return out;
  }
  size_t legend_rows() const {
    size_t rows = 1;
    double x = 16;
    for (const Series* s : named()) {
      if (x + legend_width(*s) > kWidth - 16 && x > 16) x = 16, ++rows;
      x += legend_width(*s);
    }
    return rows;
  }

  void legend() {
    if (named().size() < 2) return;
    double x = 16, y = top_ + 46;
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      const Series& s = chart_.series[i];
      if (s.name.empty()) continue;
      if (x + legend_width(s) > kWidth - 16 && x > 16) x = 16, y += 20;
      out_ << "<rect x=\"" << x << "\" y=\"" << y - 9 << "\" width=\"14\" height=\"10\" rx=\"2\" fill=\""
           << paint(s.colour, i) << "\"/>\n";
      text(x + 20, y, s.name, "start", kInk);
      x += legend_width(s);
    }
  }

  void axes() {
    if (chart_.x.categories.empty()) {
      for (const double v : ticks(x_)) {
        line(x_(v), ceiling_, x_(v), bottom_, kRule);
        text(x_(v), bottom_ + 18, tick_text(v), "middle", kSoft);
      }
    } else {
      for (size_t i = 0; i < chart_.x.categories.size(); ++i)
        text(x_(static_cast<double>(i)), bottom_ + 18, chart_.x.categories[i], "middle", kSoft);
    }
    if (horizontal()) {
      for (size_t i = 0; i < chart_.y.categories.size(); ++i)
        text(x_.start - 8, y_(static_cast<double>(i)) + 4, chart_.y.categories[i], "end", kInk);
    } else {
      for (const double v : ticks(y_)) {
        line(x_.start, y_(v), x_.end, y_(v), kRule);
        text(x_.start - 8, y_(v) + 4, tick_text(v), "end", kSoft);
      }
      const double middle = (bottom_ + ceiling_) / 2;
      text(20, middle, chart_.y.title, "middle", kSoft, str("transform=\"rotate(-90 20 ", middle, ")\""));
    }
    line(x_.start, bottom_, x_.end, bottom_, kSoft);
    text((x_.start + x_.end) / 2, bottom_ + 40, chart_.x.title, "middle", kSoft);
  }

  static std::vector<double> ticks(const Scale& scale) {
    if (scale.log) return log_ticks(std::pow(10, scale.low), std::pow(10, scale.high));
    return round_ticks(scale.low, scale.high, 7);
  }

  void series(const Series& s, size_t index) {
    const std::string colour = paint(s.colour, index);
    if (s.mark == Mark::kBars) {
      bars(s, index, colour);
    } else {
      const bool points = s.mark == Mark::kPoints || s.mark == Mark::kHighlights;
      if (!points && s.mark != Mark::kLabels) path(s, colour);
      if (points || s.mark == Mark::kLineAndPoints)
        for (size_t i = 0; i < s.x.size(); ++i) circle(x_(s.x[i]), y_(s.y[i]), s, colour);
    }
    for (size_t i = 0; i < s.x.size() && (s.labelled || s.mark == Mark::kLabels); ++i) label(s, index, i);
  }

  void circle(double x, double y, const Series& s, const std::string& colour) {
    const bool highlight = s.mark == Mark::kHighlights;
    const double radius = highlight ? 7 : s.x.size() > 1000 ? 1.6 : s.x.size() > 60 ? 2.5 : 4;
    out_ << "<circle cx=\"" << x << "\" cy=\"" << y << "\" r=\"" << radius << "\" fill=\"" << colour
         << (highlight ? "\" stroke=\"#ffffff\" stroke-width=\"2\"/>\n" : "\" fill-opacity=\"0.8\"/>\n");
  }

  /// A point's note: at the tip of a bar, in the middle of a lone stacked one, else above and below by turns.
  void label(const Series& s, size_t index, size_t i) {
    const bool left = s.x[i] < 0;
    if (s.mark == Mark::kBars && labels_beside_bars(chart_)) {
      const auto [group, groups] = bar_group(index);
      const double middle = s.y[i] - 0.4 + 0.8 * (group + 0.5) / groups;
      text(x_(s.x[i]) + (left ? -6 : 6), y_(middle) + 4, s.notes[i], left ? "end" : "start", kInk);
    } else if (horizontal()) {
      text(x_(stacked_[s.y[i]] - s.x[i] / 2), y_(s.y[i]) + 4, s.notes[i], "middle", "#ffffff");
    } else {
      text(x_(s.x[i]), y_(s.y[i]) + (i % 2 == 0 ? -8 : 17), s.notes[i], "middle", kInk);
    }
  }

  void path(const Series& s, const std::string& colour) {
    out_ << "<polyline fill=\"none\" stroke=\"" << colour << "\" stroke-width=\"2\""
         << (s.dashed ? " stroke-dasharray=\"7 4\"" : "") << " points=\"";
    for (size_t i = 0; i < s.x.size(); ++i) {
      if (s.mark == Mark::kSteps && i > 0) out_ << x_(s.x[i]) << ',' << y_(s.y[i - 1]) << ' ';
      out_ << x_(s.x[i]) << ',' << y_(s.y[i]) << ' ';
    }
    out_ << "\"/>\n";
  }

  /// Which of the bars that share a place this series' are, and how many share it.
  std::pair<double, double> bar_group(size_t index) const {
    if (chart_.stacked) return {0, 1};
    double group = 0, groups = 0;
    for (size_t i = 0; i < chart_.series.size(); ++i) {
      if (chart_.series[i].mark != Mark::kBars) continue;
      if (i == index) group = groups;
      ++groups;
    }
    return {group, groups};
  }

  void bars(const Series& s, size_t index, const std::string& colour) {
    const std::vector<double>& along = horizontal() ? s.y : s.x;  // where a bar stands
    const std::vector<double>& length = horizontal() ? s.x : s.y;
    const Scale& place = horizontal() ? y_ : x_;
    const Scale& size = horizontal() ? x_ : y_;
    const auto [group, groups] = bar_group(index);
    double gap = 1;  // between neighbouring places; categories are 1 apart
    if (!horizontal() && chart_.x.categories.empty() && along.size() > 1) {
      gap = std::abs(along[1] - along[0]);
      for (size_t i = 2; i < along.size(); ++i) gap = std::min(gap, std::abs(along[i] - along[i - 1]));
    }
    const double width = 0.8 * gap / groups;
    for (size_t i = 0; i < length.size(); ++i) {
      const double base = chart_.stacked ? stacked_[along[i]] : size.log ? std::pow(10, size.low) : 0;
      const double tip = chart_.stacked ? stacked_[along[i]] += length[i] : length[i];
      const double left = along[i] - 0.4 * gap + width * group;
      const auto [p0, p1] = std::minmax({place(left), place(left + width)});
      const auto [q0, q1] = std::minmax({size(base), size(tip)});
      if (horizontal())
        rect(q0, p0, q1 - q0, p1 - p0, colour);
      else
        rect(p0, q0, p1 - p0, q1 - q0, colour);
    }
  }

  void guide(const Guide& g) {
    const char* colour = paint(Colour::kBad, 0);
    if (g.vertical) {
      line(x_(g.value), ceiling_, x_(g.value), bottom_, colour, "stroke-dasharray=\"3 3\"");
      const bool far = x_(g.value) > (x_.start + x_.end) / 2;
      text(x_(g.value) + (far ? -5 : 5), ceiling_ + 12, g.label, far ? "end" : "start", colour);
    } else {
      line(x_.start, y_(g.value), x_.end, y_(g.value), colour, "stroke-dasharray=\"3 3\"");
      text(x_.end - 4, y_(g.value) - 5, g.label, "end", colour);
    }
  }

  void line(double x0, double y0, double x1, double y1, const char* colour, const char* more = "") {
    out_ << "<line x1=\"" << x0 << "\" y1=\"" << y0 << "\" x2=\"" << x1 << "\" y2=\"" << y1 << "\" stroke=\""
         << colour << "\" " << more << "/>\n";
  }
  void rect(double x, double y, double width, double height, const std::string& colour) {
    out_ << "<rect x=\"" << x << "\" y=\"" << y << "\" width=\"" << width << "\" height=\"" << height
         << "\" fill=\"" << colour << "\"/>\n";
  }
  void text(double x, double y, const std::string& words, const char* anchor, const char* colour,
            const std::string& more = "") {
    out_ << "<text x=\"" << x << "\" y=\"" << y << "\" text-anchor=\"" << anchor << "\" fill=\"" << colour
         << "\" " << more << ">" << escaped(words) << "</text>\n";
  }

  std::ostringstream& out_;
  const Chart& chart_;
  const double top_;
  double ceiling_ = 0, bottom_ = 0;  // of the plot
  Scale x_, y_;
  std::map<double, double> stacked_;  // where the next bar of a place begins
};

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  if (!(high > low)) return {low};
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough) step = factor * power;
  std::vector<double> ticks;
  const double first = std::ceil(low / step - 1e-9);
  for (double i = first; i * step <= high + 1e-9 * step; ++i) ticks.push_back(i * step + 0.0);  // never -0
  return ticks;
}

std::vector<double> log_ticks(double low, double high) {
  if (high < 8 * low) return round_ticks(low, high, 6);
  const auto first = static_cast<int>(std::floor(std::log10(low))),
             last = static_cast<int>(std::ceil(std::log10(high)));
  std::vector<double> factors{1};
  if (last - first <= 3) factors = {1, 2, 5};
  std::vector<double> ticks;
  for (int decade = first; decade <= last; ++decade)
    for (const double factor : factors) {
      const double tick = factor * std::pow(10, decade);
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push_back(tick);
    }
  return ticks;
}

std::string svg(const std::vector<Chart>& charts) {
  std::ostringstream body;
  body.precision(6);
  double height = 0;
  for (const Chart& chart : charts) height += Drawing(body, chart, height).draw();
  std::ostringstream out;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << kWidth << ' ' << height
      << "\" width=\"" << kWidth << "\" height=\"" << height
      << "\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"" << kFontSize
      << "\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
      << body.str() << "</svg>\n";
  return out.str();
}

}  // namespace moge::sim
