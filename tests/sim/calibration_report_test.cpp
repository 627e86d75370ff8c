#include "sim/calibration_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace moge::sim {
namespace {

TEST(CalibrationReport, HasEveryRowWithItsStatus) {
  const auto result = nlohmann::ordered_json::parse(R"({"machines": [{
    "hardware": "h",
    "rows": [{"row": "a", "measured_ms": 100, "predicted_ms": 103, "error": 0.03, "status": "calibrated"},
             {"row": "b", "measured_ms": 10, "predicted_ms": 9, "error": -0.1, "status": "held out"}],
    "calibrated": {"mean": 0.03, "max": 0.03}, "held_out": {"mean": 0.1, "max": 0.1},
    "leave_one_out": {"rows": [{"row": "a", "measured_ms": 100, "predicted_ms": 110, "error": 0.1, "status": "held out"}],
                      "errors": {"mean": 0.1, "max": 0.1}},
    "constants": {"op_us": {"value": 6.9, "status": "fitted", "prior": 7}, "step_us": {"value": 300, "status": "prior"}}}]})");
  const Report report = calibration_report(result);
  using Row = std::vector<std::string>;
  EXPECT_EQ(report.tables[0].rows[0], (Row{"h", "a", "100.00", "103.00", "+3.00%", "calibrated"}));
  EXPECT_EQ(report.tables[0].rows[1], (Row{"h", "b", "10.00", "9.00", "-10.00%", "held out"}));
  EXPECT_EQ(report.tables[0].rows[2], (Row{"h", "a", "100.00", "110.00", "+10.00%", "left out"}));
  EXPECT_EQ(report.tables[1].rows[0], (Row{"op_us", "6.900", "fitted", "7.000"}));
  EXPECT_EQ(report.facts.size(), 3U);
  const Chart& parity = report.charts[0];
  EXPECT_EQ(parity.series.back().name, "held out");
  EXPECT_EQ(parity.series.back().x, std::vector<double>{10});
  EXPECT_EQ(parity.series.back().y, std::vector<double>{9});
  EXPECT_EQ(report.charts[1].y.categories, (std::vector<std::string>{"a", "b", "a (left out)"}));
}

}  // namespace
}  // namespace moge::sim
