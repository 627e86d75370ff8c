// moge sim serve: a serving scheduler on predicted step times, over a trace.
#include <chrono>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/report_options.h"
#include "cli/sim_setup.h"
#include "core/error.h"
#include "core/log.h"
#include "sim/fleet.h"
#include "sim/plan_file.h"
#include "sim/serving_report.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

constexpr double kMaxCount = 1e9;

struct SimServeOptions {
  SimSetupOptions setup;
  std::filesystem::path trace;
  std::string timestamp_unit = "s";
  sim::SyntheticTrace synthetic;
  int64_t seed = 0;
  sim::SchedulerPolicy policy;
  std::optional<std::string> mtp;
  int64_t machines = 1;
  sim::Objective objective;
  bool find_cards = false;
  int64_t threads = 0;
  ReportOptions files;

  std::vector<Option> options() {
    return joined(joined(joined(setup.options(), trace_options()), policy_options()), files.options());
  }

 private:
  std::vector<Option> trace_options() {
    return {{.name = "trace",
             .target = &trace,
             .value = "FILE",
             .help = "CSV or JSON lines with timestamp, input_tokens, output_tokens; without: made up"},
            {.name = "timestamp-unit",
             .target = &timestamp_unit,
             .value = "U",
             .help = "Of the file: s or ms",
             .choices = {"s", "ms"}},
            {.name = "requests",
             .target = &synthetic.requests,
             .value = "N",
             .help = "To make up",
             .min = 1,
             .max = 1e8},
            {.name = "rate",
             .target = &synthetic.requests_per_s,
             .value = "X",
             .help = "Requests a second, in the mean"},
            {.name = "burstiness",
             .target = &synthetic.burstiness,
             .value = "X",
             .help = "Shape of the gamma-distributed gaps: 1 Poisson, less burstier"},
            {.name = "input-tokens",
             .target = &synthetic.input.mean,
             .value = "N",
             .help = "Of a prompt, in the mean"},
            {.name = "input-cv",
             .target = &synthetic.input.cv,
             .value = "X",
             .help = "Deviation over mean, log-normal; 0: all equal"},
            {.name = "output-tokens",
             .target = &synthetic.output.mean,
             .value = "N",
             .help = "Of an answer, in the mean"},
            {.name = "output-cv", .target = &synthetic.output.cv, .value = "X", .help = "Likewise"},
            {.name = "seed", .target = &seed, .value = "N", .help = "Of what is made up", .min = 0}};
  }
  std::vector<Option> policy_options() {
    return {{.name = "machines",
             .target = &machines,
             .value = "N",
             .help = "Each of --cards cards; requests go to them in turn",
             .min = 1,
             .max = 1e6},
            {.name = "max-step-tokens",
             .target = &policy.max_step_tokens,
             .value = "N",
             .help = "Budget of a step; longer prompts go in chunks",
             .min = 1,
             .max = kMaxCount},
            {.name = "max-running",
             .target = &policy.max_running,
             .value = "N",
             .help = "Requests in a step",
             .min = 1,
             .max = kMaxCount},
            {.name = "block-tokens",
             .target = &policy.block_tokens,
             .value = "N",
             .help = "Of a cache block",
             .min = 1,
             .max = kMaxCount},
            {.name = "mtp",
             .target = &mtp,
             .value = "K,ACCEPT",
             .help = "Draft tokens a step, and the probability that one is right"},
            {.name = "slo-ttft-ms",
             .target = &objective.ttft_ms,
             .value = "X",
             .help = "Longest time to the first token",
             .min = 0},
            {.name = "slo-tpot-ms",
             .target = &objective.tpot_ms,
             .value = "X",
             .help = "Longest time per output token",
             .min = 0},
            {.name = "slo-share",
             .target = &objective.share,
             .value = "P",
             .help = "Share of the requests that must keep them",
             .min = 0,
             .max = 1},
            {.name = "find-cards",
             .target = &find_cards,
             .help = "How few cards keep the objective: any number of machines of 1, 2, 4, ... --cards"},
            sim_threads_option(&threads)};
  }
};

std::vector<sim::Request> trace_of(const SimServeOptions& o) {
  if (!o.trace.empty()) return sim::read_trace(o.trace, o.timestamp_unit == "ms" ? 1000 : 1);
  sim::SyntheticTrace synthetic = o.synthetic;
  synthetic.seed = static_cast<uint64_t>(o.seed);
  return sim::make_trace(synthetic);
}

ordered_json sample_json(const sim::Sample& s) {
  return {{"mean", s.mean()},
          {"p50", s.quantile(0.5)},
          {"p90", s.quantile(0.9)},
          {"p99", s.quantile(0.99)},
          {"max", s.max()}};
}

ordered_json objective_json(const sim::Objective& o) {
  ordered_json out;
  out["ttft_ms"] = o.ttft_ms ? ordered_json(*o.ttft_ms) : ordered_json();
  out["tpot_ms"] = o.tpot_ms ? ordered_json(*o.tpot_ms) : ordered_json();
  out["share"] = o.share;
  return out;
}

ordered_json run_json(const SimServeOptions& o, const SimSetup& s, const sim::ServingChoice& c,
                      size_t requests) {
  const auto cards = static_cast<double>(s.cards * o.machines);
  const sim::ServingSummary& sum = c.summary;
  const sim::ServingRun& run = c.run;
  ordered_json out = {{"model", o.setup.model},
                      {"hardware", o.setup.machine.hardware},
                      {"cards", s.cards},
                      {"machines", o.machines},
                      {"total_cards", s.cards * o.machines},
                      {"plan", sim::plan_json(c.plan)},
                      {"trace", o.trace.empty() ? "synthetic" : o.trace.string()},
                      {"requests", requests},
                      {"input_tokens", sum.input_tokens},
                      {"output_tokens", sum.output_tokens},
                      {"duration_s", run.end_s},
                      {"ttft_ms", sample_json(sum.ttft_ms)},
                      {"tpot_ms", sample_json(sum.tpot_ms)},
                      {"e2e_ms", sample_json(sum.e2e_ms)},
                      {"requests_per_s", sum.requests_per_s},
                      {"output_tokens_per_s", sum.output_tokens_per_s},
                      {"output_tokens_per_s_per_card", sum.output_tokens_per_s / cards},
                      {"total_tokens_per_s", sum.total_tokens_per_s},
                      {"total_tokens_per_s_per_card", sum.total_tokens_per_s / cards},
                      {"mean_waiting", run.mean_waiting},
                      {"max_waiting", run.max_waiting},
                      {"mean_decode_batch", run.mean_decoding},
                      {"utilization", run.busy_s / (run.end_s * static_cast<double>(o.machines))},
                      {"cache_tokens", c.policy.cache_tokens},
                      {"cache_use", run.mean_block_use},
                      {"preemptions", run.preemptions},
                      {"steps", run.steps}};
  out["slo"] = objective_json(o.objective);
  out["slo"]["share_within"] = c.share_within;
  out["slo"]["met"] = o.objective.met_by(sum);
  return out;
}

ordered_json fleet_json(const std::vector<sim::FleetTrial>& trials, const sim::Objective& objective) {
  ordered_json sizes = ordered_json::array();
  for (const sim::FleetTrial& t : trials) {
    ordered_json size = {{"cards", t.cards}};
    if (!t.refusal.empty()) {
      size["refusal"] = t.refusal;
    } else {
      size["plan"] = sim::plan_json(t.plan);
      size["machines"] = t.search.replicas > 0 ? ordered_json(t.search.replicas) : ordered_json();
      size["total_cards"] = t.search.replicas > 0 ? ordered_json(t.total_cards()) : ordered_json();
      for (const sim::ReplicaTrial& r : t.search.trials)
        size["tried"].push_back({{"machines", r.replicas},
                                 {"ttft_ms", r.summary.ttft_ms.quantile(objective.share)},
                                 {"tpot_ms", r.summary.tpot_ms.quantile(objective.share)},
                                 {"met", r.met}});
    }
    sizes.push_back(size);
  }
  const sim::FleetTrial* best = sim::fewest_cards(trials);
  ordered_json out;
  out["total_cards"] = best ? ordered_json(best->total_cards()) : ordered_json();
  out["cards"] = best ? ordered_json(best->cards) : ordered_json();
  out["machines"] = best ? ordered_json(best->search.replicas) : ordered_json();
  out["sizes"] = sizes;
  return out;
}

void print(const ordered_json& r) {
  const auto line = [](const char* label, const std::string& text) {
    std::cout << std::left << std::setw(22) << label << text << '\n';
  };
  const auto n = [](const ordered_json& v, int digits = 4) {
    return sim::number_text(v.get<double>(), digits);
  };
  line("cards", str(r["total_cards"], ": ", r["machines"], " x ", r["cards"], ", ",
                    r["plan"]["text"].get<std::string>()));
  line("requests", str(sim::fixed_text(r["requests"], 0), " in ", n(r["duration_s"]), " s, ",
                       n(r["requests_per_s"]), " a second"));
  std::cout << std::left << std::setw(22) << "ms" << std::right;
  for (const char* q : {"mean", "p50", "p90", "p99", "max"}) std::cout << std::setw(10) << q;
  std::cout << '\n';
  for (const char* what : {"ttft_ms", "tpot_ms", "e2e_ms"}) {
    std::cout << std::left << std::setw(22) << what << std::right;
    for (const auto& [name, value] : r[what].items()) std::cout << std::setw(10) << n(value);
    std::cout << '\n';
  }
  line("throughput",
       str(n(r["output_tokens_per_s"]), " output tokens/s, ", n(r["output_tokens_per_s_per_card"]),
           " a card; with prompts ", n(r["total_tokens_per_s"])));
  line("queue", str(n(r["mean_waiting"], 3), " waiting in the mean, ", r["max_waiting"], " at most; busy ",
                    n(100 * r["utilization"].get<double>(), 3), "% of the time"));
  line("batch", str(n(r["mean_decode_batch"], 3), " requests decode together; cache ",
                    n(100 * r["cache_use"].get<double>(), 3), "% full, ", r["preemptions"], " preemptions"));
  const ordered_json& slo = r["slo"];
  if (!slo["ttft_ms"].is_null() || !slo["tpot_ms"].is_null())
    line("objective", str(slo["met"].get<bool>() ? "met: " : "missed: ",
                          n(100 * slo["share_within"].get<double>()), "% of the requests within"));
  if (r.contains("find_cards")) {
    const ordered_json& found = r["find_cards"];
    line("cards needed", found["total_cards"].is_null()
                             ? "out of reach at any number of these machines"
                             : str(found["total_cards"], ": ", found["machines"], " x ", found["cards"]));
    for (const ordered_json& size : found["sizes"])
      if (size.contains("refusal"))
        line(str("  ", size["cards"], " a machine").c_str(), size["refusal"]);
      else
        line(str("  ", size["cards"], " a machine").c_str(),
             size["machines"].is_null() ? "out of reach" : str(size["machines"], " machines"));
  }
  const ordered_json& speed = r["simulation"];
  line("simulated",
       str(n(speed["tokens"]), " tokens in ", n(speed["seconds"], 3),
           " s: ", n(speed["tokens_per_s"].get<double>() * 1e-6, 3), " M tokens/s, of answers alone ",
           n(speed["output_tokens"].get<double>() / speed["seconds"].get<double>() * 1e-6, 3), " M"));
}

void sim_serve(const SimServeOptions& o) {
  check<UsageError>(!o.find_cards || o.objective.ttft_ms || o.objective.tpot_ms,
                    "--find-cards needs an objective: --slo-ttft-ms, --slo-tpot-ms or both");
  const SimSetup setup = load_setup(o.setup);
  sim::SchedulerPolicy policy = o.policy;
  if (o.mtp) {
    const sim::Speculation mtp = sim::parse_speculation(*o.mtp);
    policy.draft_tokens = mtp.draft_tokens;
    policy.acceptance = mtp.acceptance;
  }
  policy.seed = static_cast<uint64_t>(o.seed);
  const std::vector<sim::Request> trace = trace_of(o);
  ThreadPool pool(static_cast<int>(o.threads));
  const sim::PlanSearch search = setup.search();
  sim::ServingChoice choice = sim::choose_plan(search, trace, policy, o.objective, o.machines, pool);
  const auto start = std::chrono::steady_clock::now();
  choice.run = sim::simulate_replicas(trace, choice.policy,
                                      sim::step_time_of(search.model(choice.plan), policy), o.machines, pool);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  ordered_json out = run_json(o, setup, choice, trace.size());
  out["simulation"] = {{"tokens", choice.run.computed_tokens},
                       {"output_tokens", choice.summary.output_tokens},
                       {"seconds", seconds},
                       {"tokens_per_s", static_cast<double>(choice.run.computed_tokens) / seconds}};
  std::vector<sim::FleetTrial> trials;
  if (o.find_cards) {
    trials = sim::search_fleet(
        [&](int64_t cards) {
          SimSetupOptions smaller = o.setup;
          smaller.cards = cards;
          return load_setup(smaller).search();
        },
        o.setup.cards, trace, policy, o.objective, pool);
    out["find_cards"] = fleet_json(trials, o.objective);
  }
  if (o.files.any()) o.files.write(sim::serving_report(out, trace, choice, o.objective, trials), out);
  if (o.files.json)
    print_json(out, 2);
  else
    print(out);
}

}  // namespace

Command sim_serve_command() {
  return make_command<SimServeOptions>(
      {"sim serve", "runs a serving scheduler on predicted step times over a trace",
       "Continuous batching, first come first served: chunked prompts within a budget of tokens a step, a\n"
       "blocked cache, preemption by recomputing. Step times come from the model behind moge sim decode\n"
       "(docs/sim_serving.md). Prints the distributions of the time to the first token, per output token\n"
       "and end to end, throughput and queues; --find-cards says how few cards keep an objective.\n\n"
       "  moge sim serve --model pangu-pro-moe-72b-a16b --hardware ascend-800i-a2 --cards 4 --rate 2\n"
       "  moge sim serve --model pangu-pro-moe-72b-a16b --hardware ascend-800i-a2 --cards 8 --rate 8 \\\n"
       "    --slo-ttft-ms 2000 --slo-tpot-ms 50 --find-cards --html serve.html\n"},
      sim_serve);
}

}  // namespace moge::cli
