#include "sim/serving_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/str.h"

namespace moge::sim {
namespace {

using nlohmann::ordered_json;

/// A distribution as the share of requests that are at least this quick.
Chart distribution(const char* id, const char* title, const char* axis, const Sample& sample,
                   const std::optional<double>& limit, double share) {
  constexpr int kPoints = 200;
  Chart chart{id, title, "", {axis, true}, {"Share of the requests (%)"}};
  chart.y.min = 0;
  chart.y.max = 102;
  Series line{"", Mark::kLine};
  for (int i = 1; i <= kPoints; ++i) {
    const double p = static_cast<double>(i) / kPoints;
    const double value = sample.quantile(p);
    if (value <= 0) continue;  // a logarithmic axis has no place for it
    line.x.push_back(value);
    line.y.push_back(100 * p);
  }
  chart.series = {line};
  if (limit)
    chart.guides = {{str("objective: ", *limit, " ms"), *limit, true}, {str(100 * share, "%"), 100 * share}};
  return chart;
}

Chart timeline(const ServingRun& run, int64_t replicas) {
  Chart chart{
      "queue", "Requests over time", replicas > 1 ? "Of the first machine." : "", {"Time (s)"}, {"Requests"}};
  Series waiting{"waiting", Mark::kSteps}, running{"running", Mark::kSteps};
  waiting.colour = Colour::kMemory;
  running.colour = Colour::kCompute;
  for (const TimelinePoint& p : run.timeline) {
    for (Series* s : {&waiting, &running}) s->x.push_back(p.time_s);
    waiting.y.push_back(static_cast<double>(p.waiting));
    running.y.push_back(static_cast<double>(p.running));
  }
  chart.series = {running, waiting};
  chart.y.min = 0;
  return chart;
}

Chart cache(const ServingRun& run, const SchedulerPolicy& policy, int64_t replicas) {
  Chart chart{"cache",
              "Use of the key-value cache",
              replicas > 1 ? "Of the first machine." : "",
              {"Time (s)"},
              {"Blocks in use (%)"}};
  const int64_t num_blocks = policy.cache_tokens / policy.block_tokens;
  const auto blocks = static_cast<double>(num_blocks);
  Series used{"", Mark::kSteps};
  for (const TimelinePoint& p : run.timeline) {
    used.x.push_back(p.time_s);
    used.y.push_back(100 * static_cast<double>(p.used_blocks) / blocks);
  }
  chart.series = {used};
  chart.y.min = 0;
  chart.y.max = 102;
  return chart;
}

/// Output tokens that finished requests brought, by equal slices of time.
Chart throughput(std::span<const Request> trace, const ServingRun& run) {
  constexpr size_t kSlices = 60;
  Chart chart{"throughput",
              "Throughput over time",
              "Output tokens, spread evenly from a request's first to its last.",
              {"Time (s)"},
              {"Output tokens/s"}};
  const double width = run.end_s / kSlices;
  std::vector<double> tokens(kSlices);
  for (size_t i = 0; i < trace.size(); ++i) {
    const Served& s = run.served[i];
    const auto n = static_cast<double>(trace[i].output_tokens);
    const auto slice = [&](double t) { return std::min(static_cast<size_t>(t / width), kSlices - 1); };
    const double span = s.finish_s - s.first_token_s;
    if (span <= 0) {
      tokens[slice(s.finish_s)] += n;
      continue;
    }
    for (size_t k = slice(s.first_token_s); k <= slice(s.finish_s); ++k) {
      const double begin = std::max(s.first_token_s, static_cast<double>(k) * width);
      const double end = std::min(s.finish_s, static_cast<double>(k + 1) * width);
      if (end > begin) tokens[k] += n * (end - begin) / span;
    }
  }
  Series line{"", Mark::kSteps};
  for (size_t k = 0; k < kSlices; ++k) {
    line.x.push_back(static_cast<double>(k) * width);
    line.y.push_back(tokens[k] / width);
  }
  chart.series = {line};
  chart.y.min = 0;
  return chart;
}

/// What the objective's quantile becomes with more machines.
Chart fleet_chart(const char* id, const char* title, const char* axis, const std::vector<FleetTrial>& trials,
                  Sample ServingSummary::*sample, const std::optional<double>& limit, double share) {
  Chart chart{id,
              title,
              str("At ", 100 * share, "% of the requests; one line for each size of machine."),
              {"Cards in all", true},
              {axis, true}};
  for (const FleetTrial& t : trials) {
    Series line{str(t.cards, t.cards == 1 ? " card" : " cards", " a machine"), Mark::kLineAndPoints};
    for (const ReplicaTrial& r : t.search.trials) {
      const double value = (r.summary.*sample).quantile(share);
      if (value <= 0) continue;
      line.x.push_back(static_cast<double>(t.cards * r.replicas));
      line.y.push_back(value);
      line.notes.push_back(str(r.replicas, " machines, objective ", r.met ? "met" : "missed"));
    }
    if (!line.x.empty()) chart.series.push_back(std::move(line));
  }
  if (limit) chart.guides = {{str("objective: ", *limit, " ms"), *limit}};
  return chart;
}

Table fleet_table(const std::vector<FleetTrial>& trials, const Objective& objective) {
  Table table{"fleet",
              "Cards for the objective",
              objective.str(),
              {"Cards a machine", "Machines", "Cards in all", "TTFT (ms)", "TPOT (ms)", "Plan"}};
  const FleetTrial* best = fewest_cards(trials);
  for (const FleetTrial& t : trials) {
    if (&t == best) table.marked.push_back(table.rows.size());
    if (!t.refusal.empty()) {
      table.rows.push_back({str(t.cards), "", "", "", "", t.refusal});
      continue;
    }
    // Those of the answer; where there is none those of the most machines.
    const auto trial = t.search.replicas > 0
                           ? std::ranges::find(t.search.trials, t.search.replicas, &ReplicaTrial::replicas)
                           : t.search.trials.end() - 1;
    const bool found = t.search.replicas > 0;
    table.rows.push_back(
        {str(t.cards), found ? str(t.search.replicas) : "", found ? str(t.total_cards()) : "",
         number_text(trial->summary.ttft_ms.quantile(objective.share), 4),
         number_text(trial->summary.tpot_ms.quantile(objective.share), 4),
         str(t.plan.str(), found ? "" : "; out of reach even with a machine for each request")});
  }
  return table;
}

Table latency_table(const ordered_json& r) {
  Table table{
      "latency", "Latencies", "", {"What", "Mean (ms)", "p50 (ms)", "p90 (ms)", "p99 (ms)", "Max (ms)"}};
  for (const auto& [key, name] : {std::pair{"ttft_ms", "time to first token"},
                                  {"tpot_ms", "time per output token"},
                                  {"e2e_ms", "end to end"}}) {
    std::vector<std::string> row{name};
    for (const char* q : {"mean", "p50", "p90", "p99", "max"}) row.push_back(number_text(r[key][q], 4));
    table.rows.push_back(row);
  }
  return table;
}

}  // namespace

Report serving_report(const ordered_json& r, std::span<const Request> trace, const ServingChoice& choice,
                      const Objective& objective, const std::vector<FleetTrial>& trials) {
  const int64_t machines = r["machines"];
  Report report{
      str("Serving ", r["model"].get<std::string>(), " on ", r["total_cards"], " x ",
          r["hardware"].get<std::string>()),
      str(fixed_text(r["requests"], 0), " requests, ",
          number_text(static_cast<double>(trace.size()) / std::max(trace.back().arrival_s, 1e-9)),
          " a second; ", number_text(r["input_tokens"].get<double>() / static_cast<double>(trace.size())),
          " tokens in and ",
          number_text(r["output_tokens"].get<double>() / static_cast<double>(trace.size())),
          " out in the mean; ", machines > 1 ? str(machines, " machines: ") : "",
          r["plan"]["text"].get<std::string>())};
  const auto quantiles = [&](const char* key) {
    return str("p90 ", number_text(r[key]["p90"]), ", p99 ", number_text(r[key]["p99"]));
  };
  report.facts = {
      {"Time to first token, median", number_text(r["ttft_ms"]["p50"]), "ms", quantiles("ttft_ms")},
      {"Time per output token, median", number_text(r["tpot_ms"]["p50"]), "ms", quantiles("tpot_ms")},
      {"Throughput per card", number_text(r["output_tokens_per_s_per_card"]), "tokens/s",
       str(number_text(r["output_tokens_per_s"], 4), " on all cards, answers only")},
      {"Waiting", number_text(r["mean_waiting"]), "requests",
       str("at most ", r["max_waiting"], "; busy ", fixed_text(100 * r["utilization"].get<double>(), 1),
           "% of the time")},
      {"Batch", number_text(r["mean_decode_batch"]), "decoding", str(r["preemptions"], " preemptions")}};
  if (objective.ttft_ms || objective.tpot_ms)
    report.facts.push_back(
        {"Within the objective", fixed_text(100 * choice.share_within, 1), "%", objective.str()});
  if (!trials.empty()) {
    const FleetTrial* best = fewest_cards(trials);
    report.facts.push_back(
        {"Cards needed", best ? str(best->total_cards()) : "none suffice", "",
         best ? str(best->search.replicas, " machines of ", best->cards) : "the objective is out of reach"});
  }
  report.charts = {distribution("ttft", "Time to the first token", "Time to the first token (ms)",
                                choice.summary.ttft_ms, objective.ttft_ms, objective.share),
                   distribution("tpot", "Time per output token", "Time per output token (ms)",
                                choice.summary.tpot_ms, objective.tpot_ms, objective.share),
                   timeline(choice.run, machines),
                   cache(choice.run, choice.policy, machines),
                   throughput(trace, choice.run),
                   distribution("e2e", "End to end", "Time from arrival to the last token (ms)",
                                choice.summary.e2e_ms, std::nullopt, 0)};
  if (!trials.empty()) {
    report.charts.push_back(fleet_chart("fleet-ttft", "Time to the first token by cards",
                                        "Time to the first token (ms)", trials, &ServingSummary::ttft_ms,
                                        objective.ttft_ms, objective.share));
    report.charts.push_back(fleet_chart("fleet-tpot", "Time per output token by cards",
                                        "Time per output token (ms)", trials, &ServingSummary::tpot_ms,
                                        objective.tpot_ms, objective.share));
  }
  report.tables = {latency_table(r)};
  if (!trials.empty()) report.tables.push_back(fleet_table(trials, objective));
  report.notes = {
      "First come, first served; running requests spend a step's tokens before waiting ones; no prefix is "
      "shared.",
      "Step times are those of the step model (docs/sim.md); scheduling itself costs nothing here.",
      "With several machines requests go to them in turn, whatever each has to do."};
  return report;
}

}  // namespace moge::sim
