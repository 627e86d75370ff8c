#include "sim/training_report.h"

#include <nlohmann/json.hpp>

#include "core/str.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

/// The plan, and its baseline if it has one.
struct NamedPlan {
  const char* name;
  const ordered_json& result;
};
std::vector<NamedPlan> plans_of(const ordered_json& result) {
  std::vector<NamedPlan> plans{{"plan", result}};
  if (result.contains("baseline")) plans.push_back({"baseline", result["baseline"]});
  return plans;
}

Chart breakdown(const std::vector<NamedPlan>& plans) {
  Chart chart{"breakdown",
              "Where a step's time goes",
              "Of one device. Exchanges count as far as nothing hides them.",
              {"Time (ms)"},
              {""}};
  std::vector<bool> shown;  // parts that take time in some plan
  const ordered_json& parts = plans[0].result["breakdown"];
  for (size_t i = 0; i < parts.size(); ++i) {
    bool any = false;
    for (const NamedPlan& p : plans) any = any || p.result["breakdown"][i]["ms"].get<double>() > 0;
    shown.push_back(any);
    if (any) chart.y.categories.push_back(parts[i]["op"]);
  }
  for (const NamedPlan& p : plans) {
    Series bars{p.name, Mark::kBars, {}, {}, {}, Colour::kSeries, false, true};
    const double total = p.result["latency_ms"];
    for (size_t i = 0; i < parts.size(); ++i) {
      if (!shown[i]) continue;
      const double ms = p.result["breakdown"][i]["ms"];
      bars.y.push_back(static_cast<double>(bars.x.size()));
      bars.x.push_back(ms);
      bars.notes.push_back(str(number_text(ms), " ms, ", fixed_text(100 * ms / total, 1), "%"));
    }
    chart.series.push_back(std::move(bars));
  }
  return chart;
}

Chart memory(const std::vector<NamedPlan>& plans) {
  Chart chart{"memory", "Memory of the fullest device", "", {"Memory (GiB)"}, {""}};
  chart.stacked = true;
  for (const NamedPlan& p : plans) chart.y.categories.push_back(p.name);
  for (const auto& [key, name] : {std::pair{"weights_and_gradients_gib", "weights and gradients"},
                                  {"optimizer_gib", "optimizer"},
                                  {"activations_gib", "activations"}}) {
    Series part{name, Mark::kBars};
    for (const NamedPlan& p : plans) {
      part.y.push_back(static_cast<double>(part.x.size()));
      part.x.push_back(p.result["memory"][key]);
    }
    chart.series.push_back(std::move(part));
  }
  const double limit = plans[0].result["memory"]["limit_gib"];
  chart.guides = {{str("usable: ", number_text(limit), " GiB"), limit, true}};
  return chart;
}

Table comparison(const std::vector<NamedPlan>& plans) {
  Table table{"plans", "Plans", "", {"What"}};
  for (const NamedPlan& p : plans) {
    table.columns.push_back(p.name);
    table.caption +=
        str(table.caption.empty() ? "" : "; ", p.name, ": ", p.result["plan"]["text"].get<std::string>());
  }
  const auto row = [&](const char* what, const auto& text) {
    std::vector<std::string> cells{what};
    for (const NamedPlan& p : plans) cells.push_back(text(p.result));
    table.rows.push_back(std::move(cells));
  };
  row("devices", [](const ordered_json& r) { return fixed_text(r["devices"], 0); });
  row("step (ms)", [](const ordered_json& r) { return number_text(r["latency_ms"], 4); });
  row("MFU (%)", [](const ordered_json& r) { return fixed_text(100 * r["mfu"].template get<double>(), 2); });
  row("tokens/s per device",
      [](const ordered_json& r) { return number_text(r["tokens_per_s_per_device"], 4); });
  row("micro-batches", [](const ordered_json& r) { return fixed_text(r["micro_batches"], 0); });
  row("bubble (%)",
      [](const ordered_json& r) { return fixed_text(100 * r["bubble"].template get<double>(), 2); });
  row("no-op layers", [](const ordered_json& r) { return fixed_text(r["padded_layers"], 0); });
  row("memory (GiB)", [](const ordered_json& r) { return fixed_text(r["memory_gib_per_device"], 2); });
  for (size_t i = 0; i < plans[0].result["breakdown"].size(); ++i)
    row(str(plans[0].result["breakdown"][i]["op"].get<std::string>(), " (ms)").c_str(),
        [&](const ordered_json& r) { return fixed_text(r["breakdown"][i]["ms"], 2); });
  return table;
}

}  // namespace

Report training_report(const ordered_json& r) {
  const std::vector<NamedPlan> plans = plans_of(r);
  Report report{
      str("Training ", r["model"].get<std::string>(), " on ", fixed_text(r["devices"], 0), " devices of ",
          r["hardware"].get<std::string>()),
      str("sequences of ", fixed_text(r["sequence"], 0), " tokens, ", fixed_text(r["global_batch_tokens"], 0),
          " tokens a step; ", r["plan"]["text"].get<std::string>())};
  report.facts = {{"MFU", fixed_text(100 * r["mfu"].get<double>(), 2), "%", "of the machine's stated peak"},
                  {"Step", number_text(r["latency_ms"].get<double>() * 1e-3, 4), "s"},
                  {"Throughput", number_text(r["tokens_per_s_per_device"], 4), "tokens/s", "per device"},
                  {"Bubble", fixed_text(100 * r["bubble"].get<double>(), 2), "%", "of the pipeline's time"},
                  {"Memory", number_text(r["memory_gib_per_device"]), "GiB",
                   r["fits"].get<bool>() ? "of the fullest device; fits" : "does not fit"}};
  if (r.contains("baseline")) {
    const double gain = r["mfu_gain"];
    report.facts.insert(
        report.facts.begin() + 1,
        {"Against the baseline", str(gain >= 0 ? "+" : "", fixed_text(100 * gain, 1)), "% MFU",
         str("baseline: ", fixed_text(100 * r["baseline"]["mfu"].get<double>(), 2), "%")});
  }
  report.charts = {breakdown(plans), memory(plans)};
  report.tables = {comparison(plans)};
  report.notes = {
      "MFU is relative to the peak that the machine's file assumes, a disputed figure for some "
      "(configs/hardware).",
      "How much of the exchanges computation hides is an option of the command, not a result."};
  return report;
}

}  // namespace moge::sim
