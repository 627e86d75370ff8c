#include "sim/search_report.h"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/str.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

std::string shape_text(const ordered_json& r) {
  return str(r["num_hidden_layers"], " x ", r["hidden_size"], ", ", r["num_attention_heads"], "/",
             r["num_key_value_heads"], " heads, ", r["num_experts"], " experts of ",
             r["moe_intermediate_size"]);
}

/// What a scatter shows of a result on one of its axes.
struct Measure {
  std::string title;
  std::function<double(const ordered_json&)> value;
};

Measure throughput(const SearchedMachine& m, size_t index) {
  return {str(m.name, ": tokens/s per card"), [index](const ordered_json& r) {
            return r["platforms"][index]["tokens_per_s_per_card"].get<double>();
          }};
}
Measure score() {
  return {"Score (tokens/s per card)", [](const ordered_json& r) { return r["score"].get<double>(); }};
}
Measure active() {
  return {"Active parameters (billion)",
          [](const ordered_json& r) { return r["active_parameters"].get<double>() * 1e-9; }};
}

/// Adds points, but of those that would cover each other on paper only the first.
class Thinner {
 public:
  Thinner(const ordered_json& results, const Measure& x, const Measure& y) {
    for (const ordered_json& r : results) {
      max_x_ = std::max(max_x_, x.value(r));
      max_y_ = std::max(max_y_, y.value(r));
    }
  }
  void add(Series& series, double x, double y, const std::string& note) {
    constexpr double kCells = 250;
    if (!taken_
             .insert({&series, static_cast<int>(kCells * x / max_x_), static_cast<int>(kCells * y / max_y_)})
             .second)
      return;
    series.x.push_back(x);
    series.y.push_back(y);
    series.notes.push_back(note);
  }

 private:
  double max_x_ = 1e-300, max_y_ = 1e-300;
  std::set<std::tuple<const Series*, int, int>> taken_;
};

Chart scatter(const char* id, const std::string& title, const ordered_json& answer,
              const ordered_json& results, const Measure& x, const Measure& y) {
  Chart chart{id,
              title,
              str("Each point is a shape with its best plan and batch; shapes that one of the machines "
                  "cannot serve within its "
                  "objective are left out, and points that would cover each other are drawn once."),
              {x.title},
              {y.title}};
  const int64_t floor = answer["depth_floor"];
  Series shallow{str("fewer than ", floor, " layers"), Mark::kPoints, {}, {}, {}, Colour::kQuiet};
  Series deep{str(floor, " layers or more"), Mark::kPoints, {}, {}, {}, Colour::kCompute};
  Series front{"Pareto front", Mark::kPoints, {}, {}, {}, Colour::kMemory};
  Series base{"base model", Mark::kHighlights, {}, {}, {}, Colour::kBad};
  std::set<int64_t> on_front;
  for (const ordered_json& r : answer["front"]) on_front.insert(r["index"].get<int64_t>());
  Thinner thinner(results, x, y);
  for (const ordered_json& r : results) {
    if (r["score"].get<double>() <= 0) continue;
    Series& s = on_front.contains(r["index"])                   ? front
                : r["num_hidden_layers"].get<int64_t>() < floor ? shallow
                                                                : deep;
    thinner.add(s, x.value(r), y.value(r), shape_text(r));
  }
  if (answer["base"].contains("result")) {
    const ordered_json& r = answer["base"]["result"];
    base.x = {x.value(r)};
    base.y = {y.value(r)};
    base.notes = {shape_text(r)};
  }
  for (Series* s : {&shallow, &deep, &front, &base})
    if (!s->x.empty()) chart.series.push_back(std::move(*s));
  return chart;
}

/// The best score among the shapes that share a size.
Chart best_by(const char* id, const std::string& title, const std::string& caption, const char* key,
              const std::string& axis, const ordered_json& results, int64_t floor) {
  std::map<double, std::pair<double, std::string>> best;
  for (const ordered_json& r : results) {
    if (r["num_hidden_layers"].get<int64_t>() < floor || r["score"].get<double>() <= 0) continue;
    auto& entry = best[r[key].get<double>()];
    if (r["score"].get<double>() > entry.first) entry = {r["score"], shape_text(r)};
  }
  Series line{"", Mark::kLineAndPoints};
  for (const auto& [size, entry] : best) {
    line.x.push_back(size);
    line.y.push_back(entry.first);
    line.notes.push_back(entry.second);
  }
  Chart chart{id, title, caption, {axis}, {"Best score (tokens/s per card)"}, {std::move(line)}};
  chart.y.min = 0;
  return chart;
}

void add_row(Table& table, const std::string& rank, const ordered_json& r) {
  std::vector<std::string> row{rank,
                               r["num_hidden_layers"].dump(),
                               r["hidden_size"].dump(),
                               str(r["num_attention_heads"], " / ", r["num_key_value_heads"]),
                               r["num_experts"].dump(),
                               r["moe_intermediate_size"].dump(),
                               fixed_text(r["parameters"].get<double>() * 1e-9, 1),
                               fixed_text(r["active_parameters"].get<double>() * 1e-9, 2)};
  for (const ordered_json& p : r["platforms"]) {
    row.push_back(fixed_text(p["tokens_per_s_per_card"], 1));
    row.push_back(p["batch"].dump());
    row.push_back(fixed_text(p["tpot_ms"], 1));
  }
  table.rows.push_back(std::move(row));
}

Table shapes_table(const char* id, const char* title, const std::string& caption, const ordered_json& list,
                   const ordered_json& answer, const std::vector<SearchedMachine>& machines) {
  Table table{
      id, title, caption, {"", "Layers", "Hidden", "Heads / KV", "Experts", "Width", "B params", "B active"}};
  for (const SearchedMachine& m : machines)
    for (const char* what : {"tokens/s per card", "batch", "TPOT (ms)"})
      table.columns.push_back(str(m.name, ", ", what));
  const ordered_json* base = answer["base"].contains("result") ? &answer["base"]["result"] : nullptr;
  bool base_listed = false;
  for (size_t i = 0; i < list.size(); ++i) {
    if (base && list[i]["index"] == (*base)["index"]) {
      table.marked.push_back(table.rows.size());
      base_listed = true;
    }
    add_row(table, str(i + 1), list[i]);
  }
  if (base && !base_listed) {
    table.marked.push_back(table.rows.size());
    add_row(table, "base", *base);
  }
  return table;
}

}  // namespace

Report search_report(const ordered_json& answer, const ordered_json& results,
                     const std::vector<SearchedMachine>& machines) {
  const int64_t floor = answer["depth_floor"];
  Report report{"Architecture search", str(fixed_text(answer["shapes"], 0), " shapes on ")};
  for (const SearchedMachine& m : machines)
    report.subtitle += str(&m == machines.data() ? "" : " and ", m.cards, " x ", m.name,
                           " (TPOT <= ", m.slo_tpot_ms, " ms)");

  const ordered_json& best = answer["top"][0];
  report.facts = {{"Shapes", fixed_text(answer["shapes"], 0)},
                  {"Best score", number_text(best["score"], 4), "tokens/s per card", shape_text(best)},
                  {"Pareto front", str(answer["front"].size()), "shapes",
                   "throughput on each machine, active parameters"}};
  const ordered_json& base = answer["base"];
  if (base.contains("result"))
    report.facts.push_back(
        {"Base model", str(base["rank"]), str("of ", base["of"]),
         str("as deep and, within ", number_text(100 * base["band"].get<double>()), "%, as active")});

  if (machines.size() >= 2)
    report.charts.push_back(scatter("platforms", "Throughput on both machines", answer, results,
                                    throughput(machines[0], 0), throughput(machines[1], 1)));
  report.charts.push_back(
      scatter("active", "Score against active parameters", answer, results, active(), score()));
  report.charts.push_back(best_by("depth", "Best score by depth",
                                  "Shallower is always faster: why a depth floor has to be assumed.",
                                  "num_hidden_layers", "Layers", results, 0));
  report.charts.back().guides = {{str("depth floor: ", floor), static_cast<double>(floor), true}};
  const std::string above = str("Among shapes of at least ", floor, " layers.");
  report.charts.push_back(
      best_by("width", "Best score by width", above, "hidden_size", "Hidden size", results, floor));
  report.charts.push_back(best_by("experts", "Best score by number of experts", above, "num_experts",
                                  "Routed experts", results, floor));
  report.charts.push_back(best_by("heads", "Best score by key-value heads", above, "num_key_value_heads",
                                  "Key-value heads", results, floor));
  report.tables = {
      shapes_table("top", "Best shapes",
                   str("Of at least ", floor, " layers, by score; the base model is marked."), answer["top"],
                   answer, machines),
      shapes_table("front", "Pareto front", "No other shape is at least as good in every respect.",
                   answer["front"], answer, machines)};
  report.notes = {str("The score is the geometric mean of the machines' throughput; nothing here knows a "
                      "model's quality. Depth floor (",
                      floor, " layers) and active parameters stand for it: assumptions, not results."),
                  "Each shape has its best plan and the largest batch within memory and objective on each "
                  "machine (docs/sim.md)."};
  return report;
}

}  // namespace moge::sim
