// What a report shows, free of how it is drawn: svg.h draws a chart as it is, report.h hands it to the page's
// plotting library. Every number is finite; NaN and infinity are a caller's bug.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moge::sim {

/// Colours by meaning: the same thing looks the same on every page, in light and dark. What has no meaning of
/// its own takes kSeries in the order of the legend.
enum class Colour { kSeries, kCompute, kMemory, kVector, kNetwork, kOverhead, kGood, kBad, kQuiet };

enum class Mark {
  kLine,
  kPoints,
  kHighlights,  ///< points that stand out
  kLineAndPoints,
  kBars,
  kSteps,
  kLabels,  ///< the notes alone, beside where the points would be
};

struct Series {
  std::string name;  ///< in the legend
  Mark mark = Mark::kLine;
  std::vector<double> x, y;        ///< of equal length; on an axis with categories the index of one
  std::vector<std::string> notes;  ///< one per point, shown when it is pointed at; or none
  Colour colour = Colour::kSeries;
  bool dashed = false;
  bool labelled = false;  ///< the notes stand beside the points or bars
};

struct Axis {
  std::string title;  ///< with the unit: "Time per output token (ms)"
  bool log = false;   ///< values are positive
  std::vector<std::string> categories;
  std::optional<double> min, max;
};

/// A line across the chart at one value of an axis: a limit, an objective.
struct Guide {
  std::string label;
  double value = 0;
  bool vertical = false;  ///< at a value of x
};

struct Chart {
  std::string id;  ///< of the element on the page: [a-z-]
  std::string title;
  std::string caption;  ///< what to see in it; one or two sentences
  Axis x, y;
  std::vector<Series> series;
  std::vector<Guide> guides;
  bool stacked = false;  ///< bars on top of each other instead of side by side
};

}  // namespace moge::sim
