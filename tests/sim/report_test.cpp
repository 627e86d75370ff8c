#include "sim/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "refusal.h"
#include "sim/svg.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::Not;

Chart small_chart() {
  Chart chart{"speed", "Speed <& more>", "What to see.", {"Batch", true}, {"Tokens/s"}};
  chart.series = {{"one", Mark::kLine, {1, 10, 100}, {3, 2, 1}},
                  {"two", Mark::kPoints, {1, 10}, {5, 4}, {"a", "b"}}};
  chart.guides = {{"limit", 6}};
  return chart;
}

Report small_report() {
  Report report{"A </title><script>alert(1)</script>", "sub"};
  report.facts = {{"Latency", "1.5", "ms"}};
  report.charts = {small_chart()};
  report.tables = {{"ops", "Operators", "", {"name", "ms"}, {{"a,\"b\"", "1.5"}, {"<i>", "2"}}, {1}}};
  return report;
}

/// The text of the element <script ... id="ID">.
std::string script_text(const std::string& page, const std::string& id) {
  const std::string open = "id=\"" + id + "\">";
  const size_t begin = page.find(open) + open.size();
  return page.substr(begin, page.find("</script>", begin) - begin);
}

TEST(Report, PageHoldsTheNumbersAndEscapesText) {
  const ordered_json result = {{"latency_ms", 1.5}, {"name", "</script><!--"}};
  const std::string page = html_page(small_report(), result, {"body{}", "draw()", "plot()"});
  EXPECT_EQ(ordered_json::parse(script_text(page, "result")), result);
  const ordered_json charts = ordered_json::parse(script_text(page, "charts"));
  ASSERT_EQ(charts.size(), 1U);
  EXPECT_EQ(charts[0]["id"], "speed");
  EXPECT_EQ(charts[0]["title"], "Speed <& more>");
  EXPECT_EQ(charts[0]["series"][0]["x"], (std::vector<double>{1, 10, 100}));
  EXPECT_EQ(charts[0]["series"][1]["notes"], (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(charts[0]["guides"][0]["value"], 6);
  EXPECT_THAT(page, Not(HasSubstr("alert(1)</script>")));
  EXPECT_THAT(page, HasSubstr("<td class=\"number\">1.5</td>"));
  EXPECT_THAT(page, HasSubstr("<tr class=\"marked\"><td>&lt;i&gt;</td>"));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

TEST(Report, RefusesWhatCannotBeDrawn) {
  EXPECT_THAT(test::refusal([] {
                html_page(small_report(), {}, {"", "", "x</script>"});
              }),
              HasSubstr("cannot be embedded"));
  Report report = small_report();
  report.charts[0].series[0].y[1] = NAN;
  EXPECT_THAT(test::refusal<Error>([&] { html_page(report, {}, {}); }), HasSubstr("not finite"));
  report = small_report();
  report.tables[0].rows[0].pop_back();
  EXPECT_THAT(test::refusal<Error>([&] { html_page(report, {}, {}); }), HasSubstr("1 cells for 2 columns"));
}

TEST(Report, Csv) {
  EXPECT_EQ(csv(small_report().tables[0]), "name,ms\r\n\"a,\"\"b\"\"\",1.5\r\n<i>,2\r\n");
}

TEST(Report, NumberText) {
  EXPECT_EQ(number_text(0), "0");
  EXPECT_EQ(number_text(12345.6), "12,346");
  EXPECT_EQ(number_text(98.76), "98.8");
  EXPECT_EQ(number_text(-1234567), "-1,234,567");
  EXPECT_EQ(number_text(0.01234), "0.0123");
  EXPECT_EQ(number_text(1.0), "1.00");
  EXPECT_EQ(number_text(3.2e-7, 2), "3.2e-07");
  EXPECT_EQ(number_text(2.5e18), "2.50e+18");
  EXPECT_EQ(fixed_text(-1234.5, 2), "-1,234.50");
  EXPECT_EQ(fixed_text(999, 0), "999");
}

TEST(Svg, DrawsEveryMark) {
  Chart bars{"bars", "Bars", "", {"Time (ms)"}, {"Operator"}};
  bars.y.categories = {"first", "second"};
  bars.series = {{"", Mark::kBars, {3, 5}, {0, 1}, {"3 ms", "5 ms"}}};
  bars.series[0].labelled = true;
  Chart steps = small_chart();
  steps.series[0].mark = Mark::kSteps;
  const std::string picture = svg({small_chart(), bars, steps});
  EXPECT_THAT(picture, HasSubstr("Speed &lt;&amp; more&gt;"));
  EXPECT_THAT(picture, HasSubstr(">5 ms</text>"));
  EXPECT_THAT(picture, HasSubstr(">limit</text>"));
  EXPECT_THAT(picture, Not(HasSubstr("nan")));
  EXPECT_THAT(picture, Not(HasSubstr("inf")));
  const auto count = [&](const std::string& what) {
    size_t n = 0;
    for (size_t at = 0; (at = picture.find(what, at)) != std::string::npos; ++at) ++n;
    return n;
  };
  EXPECT_EQ(count("<circle"), 4U);
  EXPECT_EQ(count("<polyline"), 2U);
  EXPECT_EQ(count("<text"), count("</text>"));
}

TEST(Svg, SurvivesChartsWithoutExtent) {
  Chart empty{"empty", "Empty", "", {"x"}, {"y", true}};
  EXPECT_THAT(svg({empty}), Not(HasSubstr("nan")));
  empty.series = {{"point", Mark::kPoints, {7}, {7}}};
  EXPECT_THAT(svg({empty}), Not(HasSubstr("nan")));
}

TEST(Svg, Ticks) {
  EXPECT_EQ(round_ticks(0, 1, 5), (std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1}));
  EXPECT_EQ(round_ticks(-3, 12, 3), (std::vector<double>{0, 5, 10}));
  EXPECT_EQ(round_ticks(4, 4, 3), std::vector<double>{4});
  EXPECT_EQ(log_ticks(1, 1e4), (std::vector<double>{1, 10, 100, 1000, 10000}));
  EXPECT_EQ(log_ticks(3, 60), (std::vector<double>{5, 10, 20, 50}));
}

}  // namespace
}  // namespace moge::sim
