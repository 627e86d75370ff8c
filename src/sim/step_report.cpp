#include "sim/step_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/str.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

constexpr double kLabelledShare = 0.03;  // of the step: an operator that the roofline names

struct BoundStyle {
  const char* name;
  Colour colour;
};
constexpr std::array<BoundStyle, 5> kBounds{{{"compute", Colour::kCompute},
                                             {"memory", Colour::kMemory},
                                             {"vector", Colour::kVector},
                                             {"network", Colour::kNetwork},
                                             {"overhead", Colour::kOverhead}}};

std::string percent(double share) {
  return fixed_text(100 * share, 1) + "%";
}

struct Label {
  std::string name;
  double ms = 0;
  double x = 0, y = 0;
};

/// The labels of a chart with two logarithmic axes, without those that would lie on a larger one's.
Series readable(std::vector<Label> labels) {
  constexpr double kWidth = 0.8, kHeight = 0.12;  // of a label, in decades of a roofline
  std::ranges::sort(labels, std::greater<>(), &Label::ms);
  std::vector<Label> kept;
  for (const Label& label : labels) {
    const bool covered = std::ranges::any_of(kept, [&](const Label& k) {
      return std::abs(std::log10(label.x / k.x)) < kWidth && std::abs(std::log10(label.y / k.y)) < kHeight;
    });
    if (!covered) kept.push_back(label);
  }
  Series series{"", Mark::kLabels};
  for (const Label& label : kept) {
    series.x.push_back(label.x);
    series.y.push_back(label.y);
    series.notes.push_back(label.name);
  }
  return series;
}

/// Attained FLOP/s over FLOPs per byte of memory, below what the machine sustains.
Chart roofline(const ordered_json& result, const Roof& roof) {
  Chart chart{
      "roofline",
      "Roofline",
      "Kernels of one device by arithmetic intensity; the lines are what the machine sustains. Far "
      "below them "
      "a kernel waits for something else: launches, few rows, vector work. Large ones have their names.",
      {"Arithmetic intensity (FLOP per byte)", true},
      {"Attained speed (TFLOP/s)", true}};
  std::vector<Series> kernels;
  double low = 1e300, high = 0;
  for (const BoundStyle& b : kBounds) kernels.push_back({b.name, Mark::kPoints, {}, {}, {}, b.colour});
  std::vector<Label> labels;
  const double total = result["latency_ms"];
  for (const ordered_json& op : result["breakdown"]) {
    const double flop = op["gflop"].get<double>() * 1e9, bytes = op["mb"].get<double>() * 1e6;
    const double ms = op["ms"];
    const std::string bound = op["bound"];
    if (flop <= 0 || bytes <= 0 || bound == "network") continue;
    const double intensity = flop / bytes, speed = flop / ms * 1e-9;
    low = std::min(low, intensity);
    high = std::max(high, intensity);
    for (Series& s : kernels) {
      if (s.name != bound) continue;
      s.x.push_back(intensity);
      s.y.push_back(speed);
      s.notes.push_back(str(op["op"].get<std::string>(), ", ", number_text(ms), " ms"));
    }
    if (ms >= kLabelledShare * total) labels.push_back({op["op"], ms, intensity, speed});
  }
  if (high == 0) low = high = 1;
  for (const Roof::Peak& peak : roof.peaks) {
    const double ridge = peak.flops / roof.memory_bandwidth;
    const bool highest = chart.series.empty();  // the others share its slope
    const double left = highest ? std::min(low, ridge) / 2 : ridge;
    const double right = std::max(high, roof.peaks[0].flops / roof.memory_bandwidth) * 4;
    chart.series.push_back({peak.name + " roof",
                            Mark::kLine,
                            {left, ridge, right},
                            {left * roof.memory_bandwidth * 1e-12, peak.flops * 1e-12, peak.flops * 1e-12},
                            {},
                            Colour::kQuiet,
                            chart.series.size() % 2 == 1});
  }
  for (Series& s : kernels)
    if (!s.x.empty()) chart.series.push_back(std::move(s));
  if (!labels.empty()) chart.series.push_back(readable(std::move(labels)));
  return chart;
}

Table operators(const ordered_json& result) {
  Table table{"operators",
              "Operators",
              "Of all layers together, on one device; a kernel's fixed time is part of it.",
              {"Operator", "Time (ms)", "Share", "Bound by", "GFLOP", "MB", "TFLOP/s", "GB/s"}};
  const double total = result["latency_ms"];
  for (const ordered_json& op : result["breakdown"]) {
    const double ms = op["ms"], gflop = op["gflop"], mb = op["mb"];
    table.rows.push_back({op["op"], fixed_text(ms, 3), percent(ms / total), op["bound"], number_text(gflop),
                          number_text(mb), gflop > 0 ? number_text(gflop / ms) : "",
                          mb > 0 ? number_text(mb / ms) : ""});
  }
  return table;
}

Table plan_table(const ordered_json& plan) {
  Table table{"plan", "Parallel plan", "", {"Part", "Degree"}};
  for (const auto& [key, value] : plan.items())
    if (key != "text")
      table.rows.push_back({key, value.is_string() ? value.get<std::string>() : value.dump()});
  return table;
}

}  // namespace

Chart breakdown_chart(const std::string& title, const std::string& caption,
                      const std::vector<TimeShare>& shares) {
  Chart chart{"breakdown", title, caption, {"Time (ms)"}, {""}};
  chart.stacked = true;  // one bar a row, whichever series it belongs to
  double total = 0;
  for (const TimeShare& s : shares) {
    chart.y.categories.push_back(s.name);
    total += s.ms;
  }
  for (const BoundStyle& b : kBounds) {
    Series series{b.name, Mark::kBars, {}, {}, {}, b.colour, false, true};
    for (size_t i = 0; i < shares.size(); ++i) {
      if (shares[i].bound != b.name) continue;
      series.x.push_back(shares[i].ms);
      series.y.push_back(static_cast<double>(i));
      series.notes.push_back(
          str(fixed_text(shares[i].ms, total >= 10 ? 2 : 3), " ms, ", percent(shares[i].ms / total)));
    }
    if (!series.x.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

Chart memory_chart(const std::vector<MemoryShare>& parts, double limit_gib) {
  Chart chart{"memory", "Memory of the fullest device", "", {"Memory (GiB)"}, {""}};
  chart.stacked = true;
  chart.y.categories = {""};
  constexpr double kRoomForNumber = 0.07;  // of the bar's limit
  for (const MemoryShare& part : parts) {
    const std::string note = part.gib >= kRoomForNumber * limit_gib ? number_text(part.gib) : "";
    chart.series.push_back({part.name, Mark::kBars, {part.gib}, {0}, {note}, Colour::kSeries, false, true});
  }
  chart.guides = {{str("usable: ", number_text(limit_gib), " GiB"), limit_gib, true}};
  return chart;
}

Table constants_table(const Calibration& calibration) {
  Table table{"constants",
              str("Constants of ", calibration.hardware),
              "From the machine's calibration file; docs/sim.md explains each.",
              {"Constant", "Value", "Status", "Source"}};
  for (const ConstantField& field : constant_fields()) {
    const Constant& constant = calibration.*field.member;
    table.rows.push_back({field.name, number_text(constant.value), constant.status, constant.source});
  }
  return table;
}

Report step_report(const ordered_json& r, const Roof& roof, std::vector<Series> curves) {
  const bool decode = r["stage"] == "decode";
  Report report{str(decode ? "Decoding" : "Prefill", ": ", r["model"].get<std::string>(), " on ",
                    r["cards"].dump(), " x ", r["hardware"].get<std::string>()),
                str(decode ? str(r["batch"], " requests at ", r["context"], " cached positions")
                           : str(r["batch"], " prompts of ", r["input"], " tokens"),
                    "; weights ", r["weights"].get<std::string>(), ", KV ", r["kv"].get<std::string>(), "; ",
                    r["plan"]["text"].get<std::string>())};
  const double latency = r["latency_ms"], used = r["memory_gib_per_device"], limit = r["memory"]["limit_gib"];
  const std::string bottleneck = r["bottleneck"];
  report.facts = {{decode ? "Step" : "Time to first token", number_text(latency, 4), "ms"},
                  {"Throughput per card", number_text(r["tokens_per_s_per_card"], 4), "tokens/s",
                   str(number_text(r["tokens_per_s"], 4), " on all cards")},
                  {"Bottleneck", bottleneck, "",
                   str(percent(r["bound_ms"][bottleneck].get<double>() / latency), " of the time")},
                  {"Memory", number_text(used), "GiB",
                   used <= limit ? str(percent(used / limit), " of ", number_text(limit), " usable")
                                 : str("does not fit: ", number_text(used - limit), " GiB too much")}};
  if (decode && r["tokens_per_step"] != 1.0)
    report.facts.insert(report.facts.begin() + 1, {"Time per token", number_text(r["tpot_ms"], 4), "ms",
                                                   str(number_text(r["tokens_per_step"]), " tokens a step")});

  std::vector<TimeShare> shares;
  for (const ordered_json& op : r["breakdown"]) shares.push_back({op["op"], op["ms"], op["bound"]});
  report.charts.push_back(breakdown_chart("Where the time goes",
                                          "Kernels and collectives of one step in their order, all "
                                          "layers together, coloured by what each waits for.",
                                          shares));
  report.charts.push_back(roofline(r, roof));
  if (!curves.empty()) {
    report.charts.push_back(
        {"throughput",
         "Throughput against latency",
         "Each point is a batch size on the plan that serves it fastest; along a line the batch grows.",
         {decode ? "Time per output token (ms)" : "Time to the first token (ms)", true},
         {"Tokens/s per card"},
         std::move(curves)});
    report.charts.back().y.min = 0;
  }
  report.charts.push_back(memory_chart({{"weights", r["memory"]["weights_gib"]},
                                        {"KV cache", r["memory"]["kv_cache_gib"]},
                                        {"activations", r["memory"]["activations_gib"]}},
                                       limit));
  report.tables = {operators(r), plan_table(r["plan"])};
  return report;
}

}  // namespace moge::sim
