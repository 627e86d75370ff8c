// moge sim imbalance: how unevenly plain top-K loads the devices, beside MoGE's zero.
#include <chrono>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/report_options.h"
#include "cli/sim_setup.h"
#include "core/error.h"
#include "sim/balanced_probability.h"
#include "sim/imbalance.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

struct ImbalanceOptions {
  sim::ImbalanceSetup setup;
  int64_t seed = 0;
  int64_t threads = 0;
  ReportOptions report;

  std::vector<Option> options() {
    std::vector<Option> all{
        {.name = "experts", .target = &setup.num_experts, .value = "N", .help = "Routed experts", .min = 1},
        {.name = "top-k",
         .target = &setup.num_experts_per_tok,
         .value = "K",
         .help = "Experts a token chooses",
         .min = 1},
        {.name = "groups",
         .target = &setup.num_devices,
         .value = "M",
         .help = "Devices that share the experts",
         .min = 1},
        {.name = "batch",
         .target = &setup.batch_tokens,
         .value = "N",
         .help = "Tokens of a batch, |X|",
         .min = 1},
        {.name = "trials",
         .target = &setup.trials,
         .value = "N",
         .help = "Batches to draw",
         .min = 2,
         .max = 1e12},
        {.name = "skew",
         .target = &setup.skew,
         .value = "S",
         .help = "The r-th most popular expert weighs r^-S; 0: all alike",
         .min = 0},
        {.name = "seed", .target = &seed, .value = "N", .help = "Of the random numbers", .min = 0},
        sim_threads_option(&threads)};
    for (const Option& o : report.options()) all.push_back(o);
    return all;
  }
};

ordered_json to_json(const sim::ImbalanceResult& r, double seconds) {
  const sim::ImbalanceSetup& s = r.setup;
  ordered_json distribution = ordered_json::array();
  for (int64_t d = 0; d < r.spread.size(); ++d)
    if (r.spread.count(d) > 0)
      distribution.push_back(
          {{"imbalance", static_cast<double>(d) / static_cast<double>(s.batch_tokens)},
           {"probability", static_cast<double>(r.spread.count(d)) / static_cast<double>(s.trials)}});
  ordered_json quantiles;
  for (const auto& [name, p] :
       {std::pair{"p1", 0.01}, {"p10", 0.1}, {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}})
    quantiles[name] = r.quantile(p);
  ordered_json moge;  // null where the tokens' choices cannot be split evenly
  if (s.grouped()) moge = {{"mean", 0.0}, {"p_imbalanced", 0.0}, {"straggler_factor", 1.0}};
  return {{"experts", s.num_experts},
          {"top_k", s.num_experts_per_tok},
          {"groups", s.num_devices},
          {"batch", s.batch_tokens},
          {"skew", s.skew},
          {"trials", s.trials},
          {"seed", s.seed},
          {"p_imbalanced", r.p_imbalanced()},
          {"p_imbalanced_95", {r.p_imbalanced_low(), r.p_imbalanced_high()}},
          {"mean", r.mean()},
          {"standard_error", r.standard_error()},
          {"quantiles", quantiles},
          {"straggler_factor", r.straggler_factor()},
          {"straggler_standard_error", r.straggler_standard_error()},
          {"distribution", distribution},
          {"moge", moge},
          {"seconds", seconds},
          {"trials_per_second", static_cast<double>(s.trials) / seconds}};
}

using Exact = std::optional<double>;  ///< P(IS = 0), where it can be computed

/// "0.9987", "1 - 4.2e-07" where it is known so well, "> 0.9999962" where no drawn batch was balanced.
std::string p_imbalanced_text(const sim::ImbalanceResult& r, const Exact& balanced) {
  constexpr double kRounding = 1e-13;  // of the exact value
  if (balanced && *balanced > 0.01) return sim::number_text(1 - *balanced, 6);
  if (balanced && *balanced == 0) return "1";
  if (balanced)
    return str(*balanced < kRounding ? "> 1 - " : "1 - ",
               sim::number_text(std::max(*balanced, kRounding), 3));
  if (r.spread.count(0) == 0) return str("> ", sim::number_text(r.p_imbalanced_low(), 7));
  return sim::number_text(r.p_imbalanced(), 4);
}

std::string p_imbalanced_note(const sim::ImbalanceResult& r, const Exact& balanced) {
  const std::string drawn = str("95% by drawing: ", sim::number_text(r.p_imbalanced_low(), 7), " to ",
                                sim::number_text(r.p_imbalanced_high(), 7));
  return balanced ? str("exact; ", drawn) : drawn;
}

/// The same question for other batch sizes: 1, 2, 4, ... 1024 tokens.
sim::Chart batch_chart(const sim::ImbalanceSetup& setup, ThreadPool& pool) {
  sim::Series topk{"plain top-K", sim::Mark::kLineAndPoints};
  sim::Series moge{"MoGE", sim::Mark::kLine};
  moge.colour = sim::Colour::kGood;
  for (int64_t batch = 1; batch <= 1024; batch *= 2) {
    sim::ImbalanceSetup other = setup;
    other.batch_tokens = batch;
    other.trials = std::min<int64_t>(setup.trials, 2'000'000 / batch);
    topk.x.push_back(static_cast<double>(batch));
    topk.y.push_back(sim::simulate_imbalance(other, pool).straggler_factor());
  }
  moge.x = topk.x;
  moge.y.assign(topk.x.size(), 1.0);
  sim::Chart chart{"batch",
                   "The busiest device's load by batch size",
                   "Every layer waits for the device with the most expert rows. Small batches suffer most.",
                   {"Tokens of a batch", true},
                   {"Rows of the busiest device / mean"}};
  chart.series = {topk};
  if (setup.grouped()) chart.series.push_back(moge);
  return chart;
}

sim::Report report_of(const sim::ImbalanceResult& r, const Exact& balanced, const ordered_json& json,
                      ThreadPool& pool) {
  const sim::ImbalanceSetup& s = r.setup;
  sim::Report report{"Imbalance score of plain top-K routing",
                     str(s.num_experts, " experts on ", s.num_devices, " devices, ", s.num_experts_per_tok,
                         " chosen per token, batches of ", s.batch_tokens, " tokens",
                         s.skew > 0 ? str(", popularity r^-", s.skew) : ", all experts equally likely", "; ",
                         sim::fixed_text(static_cast<double>(s.trials), 0), " batches")};
  report.facts = {
      {"P(IS > 0)", p_imbalanced_text(r, balanced), "", p_imbalanced_note(r, balanced)},
      {"Mean IS", sim::number_text(r.mean(), 4), "",
       str("standard error ", sim::number_text(r.standard_error(), 2))},
      {"Median IS", sim::number_text(r.quantile(0.5))},
      {"99th percentile", sim::number_text(r.quantile(0.99))},
      {"Busiest device", sim::number_text(r.straggler_factor(), 4), "x mean", "what the others wait for"},
      {"MoGE", s.grouped() ? "0" : "undefined", "",
       s.grouped() ? "by construction" : "groups must divide top-k"}};

  sim::Series bars{"plain top-K", sim::Mark::kBars};
  sim::Table table{"distribution", "Distribution", "", {"Imbalance score", "Probability", "P(IS <= score)"}};
  double below = 0;
  for (const ordered_json& entry : json["distribution"]) {
    bars.x.push_back(entry["imbalance"]);
    bars.y.push_back(entry["probability"]);
    below += bars.y.back();
    table.rows.push_back(
        {sim::fixed_text(bars.x.back(), 4), sim::fixed_text(bars.y.back(), 6), sim::fixed_text(below, 6)});
  }
  sim::Chart distribution{"distribution-chart",
                          "Distribution of the imbalance score",
                          "IS = (most - fewest expert rows of a device) / tokens (arXiv 2505.21411, eq. 3).",
                          {"Imbalance score"},
                          {"Probability"}};
  distribution.x.min = 0;
  distribution.series = {bars};
  if (s.grouped()) distribution.guides = {{"MoGE: always 0", 0, true}};
  report.charts = {distribution, batch_chart(s, pool)};
  report.tables = {table};
  report.notes = {
      "A token's K experts are drawn without replacement; each device holds a contiguous, equal part of the "
      "experts.",
      "With a skew every trial places the experts anew, so the popular ones are on devices of no particular "
      "number."};
  return report;
}

void print(const sim::ImbalanceResult& r, const Exact& balanced) {
  const auto line = [](const char* label, const std::string& text) {
    std::cout << std::left << std::setw(22) << label << text << '\n';
  };
  const auto n = [](double v) { return sim::number_text(v, 4); };
  line("P(IS > 0)", str(p_imbalanced_text(r, balanced), "; ", p_imbalanced_note(r, balanced)));
  line("mean IS", str(n(r.mean()), " +- ", sim::number_text(r.standard_error(), 2)));
  line("p1, p50, p99", str(n(r.quantile(0.01)), ", ", n(r.quantile(0.5)), ", ", n(r.quantile(0.99))));
  line("busiest device", str(n(r.straggler_factor()), " x the mean load"));
  line("MoGE", r.setup.grouped() ? "0, always: every token chooses equally many experts in each group"
                                 : "undefined: the groups do not divide the experts per token");
}

void imbalance(const ImbalanceOptions& o) {
  sim::ImbalanceSetup setup = o.setup;
  setup.seed = static_cast<uint64_t>(o.seed);
  ThreadPool pool(static_cast<int>(o.threads));
  const auto start = std::chrono::steady_clock::now();
  const sim::ImbalanceResult result = sim::simulate_imbalance(setup, pool);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const Exact balanced = sim::balanced_probability(setup, pool);
  ordered_json json = to_json(result, elapsed.count());
  json["p_balanced_exact"] = balanced ? ordered_json(*balanced) : ordered_json();
  if (o.report.any()) o.report.write(report_of(result, balanced, json, pool), json);
  if (o.report.json)
    print_json(json, 2);
  else
    print(result, balanced);
}

}  // namespace

Command sim_imbalance_command() {
  return make_command<ImbalanceOptions>(
      {"sim imbalance", "how unevenly plain top-K routing loads devices",
       "Draws batches whose tokens each choose K of N experts, counts the expert rows of each of M devices\n"
       "and prints the distribution of the imbalance score (arXiv 2505.21411, eq. 3 and 4, Fig. 2b). A\n"
       "grouped choice (MoGE) scores 0 by construction.\n\n"
       "  moge sim imbalance\n"
       "  moge sim imbalance --batch 256 --skew 0.5 --html imbalance.html\n"},
      imbalance);
}

}  // namespace moge::cli
