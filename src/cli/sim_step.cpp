// moge sim decode | prefill: one serving step of a model on a machine.
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/sim_setup.h"
#include "cli/step_page.h"
#include "core/error.h"
#include "core/log.h"
#include "sim/plan_file.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

constexpr double kMilli = 1e3;
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kMaxCount = 1e9;

struct SimDecodeOptions {
  SimSetupOptions setup;
  std::optional<int64_t> batch;
  int64_t context = 2048;
  std::optional<std::string> mtp;
  std::optional<double> slo_tpot_ms;
  std::optional<double> slo_ttft_ms;
  StepPageOptions page;

  std::vector<Option> options() {
    return joined(
        joined(setup.options(), page.options()),
        {{.name = "batch",
          .target = &batch,
          .value = "B",
          .help = "Requests that decode together, on all cards (default 1)",
          .min = 1,
          .max = kMaxCount},
         {.name = "context",
          .target = &context,
          .value = "C",
          .help = "Cached positions of each request",
          .min = 1,
          .max = kMaxCount},
         {.name = "mtp",
          .target = &mtp,
          .value = "K,ACCEPT",
          .help = "Speculative decoding: K draft tokens verified a step, each right with "
                  "probability ACCEPT if those before it were"},
         {.name = "slo-tpot-ms",
          .target = &slo_tpot_ms,
          .value = "MS",
          .help = "Instead of --batch: the batch of most tokens/s whose TPOT (a step over the tokens that a "
                  "request gains in it) is at most this",
          .min = 1e-3,
          .max = 1e9},
         {.name = "slo-ttft-ms",
          .target = &slo_ttft_ms,
          .value = "MS",
          .help = "With --slo-tpot-ms: only plans that prefill one prompt of the context in this",
          .min = 1e-3,
          .max = 1e9}});
  }
};

struct SimPrefillOptions {
  SimSetupOptions setup;
  int64_t batch = 1;
  int64_t input = 2048;
  StepPageOptions page;

  std::vector<Option> options() {
    return joined(joined(setup.options(), page.options()),
                  {{.name = "batch",
                    .target = &batch,
                    .value = "B",
                    .help = "Prompts that are prefilled together, on all cards",
                    .min = 1,
                    .max = kMaxCount},
                   {.name = "input",
                    .target = &input,
                    .value = "S",
                    .help = "Tokens of each prompt",
                    .min = 1,
                    .max = kMaxCount}});
  }
};

ordered_json memory_json(const sim::DeviceMemory& m) {
  return {{"weights_gib", m.weights / kGiB},
          {"kv_cache_gib", m.kv_cache / kGiB},
          {"activations_gib", m.activations / kGiB},
          {"limit_gib", m.limit / kGiB}};
}

/// The keys that every answer has.
ordered_json step_json(const SimSetupOptions& o, const SimSetup& s, const sim::PlanChoice& choice,
                       const sim::StepBreakdown& step, double tokens) {
  ordered_json breakdown = ordered_json::array();
  for (const sim::OpRow& row : step.ops)
    breakdown.push_back({{"op", sim::name_of(row.op)},
                         {"ms", row.seconds * kMilli},
                         {"bound", sim::name_of(row.bound)},
                         {"basis", sim::name_of(row.basis)},
                         {"gflop", row.flops * 1e-9},
                         {"mb", row.bytes * 1e-6}});
  ordered_json bounds;
  for (const sim::Bound b : {sim::Bound::kCompute, sim::Bound::kMemory, sim::Bound::kVector,
                             sim::Bound::kNetwork, sim::Bound::kOverhead})
    bounds[sim::name_of(b)] = step.bound_seconds[static_cast<int>(b)] * kMilli;
  ordered_json out = {{"model", o.model},
                      {"hardware", o.machine.hardware},
                      {"cards", s.cards},
                      {"devices", s.devices},
                      {"weights", sim::name_of(s.precision.weights)},
                      {"kv", sim::name_of(s.precision.kv)},
                      {"latency_ms", step.seconds * kMilli},
                      {"tokens_per_s", tokens / step.seconds},
                      {"tokens_per_s_per_card", tokens / step.seconds / static_cast<double>(s.cards)},
                      {"bottleneck", sim::name_of(step.bottleneck)},
                      {"plan", sim::plan_json(choice.plan)},
                      {"memory_gib_per_device", choice.memory.total() / kGiB},
                      {"memory", memory_json(choice.memory)},
                      {"fits", choice.memory.fits()},
                      {"bound_ms", bounds},
                      {"breakdown", breakdown}};
  return out;
}

void print(const ordered_json& r) {
  const auto line = [](const char* label, const auto&... text) {
    std::cout << std::left << std::setw(24) << label << str(text...) << '\n';
  };
  const auto fixed = [](double x, int digits) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(digits) << x;
    return out.str();
  };
  line("latency", fixed(r["latency_ms"], 2), " ms");
  line("tokens/s a card", fixed(r["tokens_per_s_per_card"], 1));
  line("plan", r["plan"]["text"].get<std::string>());
  line("memory a device", fixed(r["memory_gib_per_device"], 2), " of ", fixed(r["memory"]["limit_gib"], 2),
       " GiB: weights ", fixed(r["memory"]["weights_gib"], 2), ", cache ",
       fixed(r["memory"]["kv_cache_gib"], 2), ", activations ", fixed(r["memory"]["activations_gib"], 2));
  line("bottleneck", r["bottleneck"].get<std::string>());
  if (r.contains("batch_limit"))
    line("batch", r["batch"].get<int64_t>(), ", limited by ", r["batch_limit"].get<std::string>());
  std::cout << '\n'
            << std::left << std::setw(24) << "op" << std::right << std::setw(10) << "ms" << std::setw(8)
            << "share"
            << "  bound     basis\n";
  const double total = r["latency_ms"];
  for (const ordered_json& op : r["breakdown"])
    std::cout << std::left << std::setw(24) << op["op"].get<std::string>() << std::right << std::setw(10)
              << fixed(op["ms"], 3) << std::setw(7) << fixed(100 * op["ms"].get<double>() / total, 1) << "%  "
              << std::left << std::setw(10) << op["bound"].get<std::string>()
              << op["basis"].get<std::string>() << '\n';
}

void warn_of_memory(const sim::DeviceMemory& m) {
  if (m.fits()) return;
  log_warning("does not fit: a device needs ", m.total() / kGiB, " GiB (weights ", m.weights / kGiB,
              ", cache ", m.kv_cache / kGiB, ", activations ", m.activations / kGiB, "), ",
              (m.total() - m.limit) / kGiB, " GiB more than its ", m.limit / kGiB);
}

void answer(const ordered_json& out, const sim::DeviceMemory& memory, bool json) {
  warn_of_memory(memory);
  if (json)
    print_json(out, 2);
  else
    print(out);
}

/// Says which limit is broken by how much. Throws OutOfMemoryError or UsageError.
[[noreturn]] void refuse(const SimDecodeOptions& o, const sim::PlanSearch& search,
                         const sim::ServingGoal& goal) {
  const sim::Infeasible why = search.why_infeasible(goal);
  if (why.memory)
    throw OutOfMemoryError(str("no plan fits one request of ", o.context, " positions: a device needs ",
                               why.least_memory_bytes / kGiB, " GiB, ",
                               (why.least_memory_bytes - why.memory_limit_bytes) / kGiB,
                               " GiB more than its ", why.memory_limit_bytes / kGiB));
  const auto too_slow = [](const char* what, double least_s, double limit_s) {
    return str(what, " takes at least ", least_s * kMilli, " ms, ", (least_s - limit_s) * kMilli,
               " ms more than the objective of ", limit_s * kMilli, " ms");
  };
  if (why.least_step_s > goal.max_step_s)
    throw UsageError(too_slow("a step of one request", why.least_step_s, goal.max_step_s));
  if (why.least_first_token_s > goal.max_first_token_s)
    throw UsageError(too_slow("the prefill of one prompt", why.least_first_token_s, goal.max_first_token_s));
  throw UsageError("no plan keeps both objectives: each is kept by another plan");
}

void sim_decode(const SimDecodeOptions& o) {
  const SimSetup s = load_setup(o.setup);
  const sim::Speculation mtp = o.mtp ? sim::parse_speculation(*o.mtp) : sim::Speculation{};
  const auto context = static_cast<double>(o.context);
  const auto drafts = static_cast<double>(mtp.draft_tokens);
  const double gained = sim::tokens_per_step(mtp.draft_tokens, mtp.acceptance);
  const sim::PlanSearch search = s.search();
  check<UsageError>(o.slo_tpot_ms || !o.slo_ttft_ms, "--slo-ttft-ms goes with --slo-tpot-ms");
  check<UsageError>(!o.slo_tpot_ms || !o.batch, "--slo-tpot-ms finds the batch: without --batch");
  std::optional<sim::BatchChoice> best;
  if (o.slo_tpot_ms) {
    const sim::ServingGoal goal{.context = context,
                                .draft_tokens = drafts,
                                .acceptance = mtp.acceptance,
                                .max_step_s = *o.slo_tpot_ms / kMilli * gained,
                                .max_first_token_s = o.slo_ttft_ms.value_or(0) / kMilli};
    best = search.best_batch(goal);
    if (!best) refuse(o, search, goal);
  }
  const int64_t requests = best ? best->requests : o.batch.value_or(1);
  const auto batch = static_cast<double>(requests);
  const sim::StepLoad load = sim::decode_load(batch, context, drafts);
  const sim::PlanChoice choice = best ? best->choice : search.fastest(load, batch, context);
  const sim::StepBreakdown step = search.model(choice.plan).explain(load);
  ordered_json out = step_json(o.setup, s, choice, step, batch * gained);
  out["stage"] = "decode";
  out["batch"] = requests;
  if (best) out["batch_limit"] = best->limit;
  out["context"] = o.context;
  out["tokens_per_step"] = gained;
  out["tpot_ms"] = step.seconds * kMilli / gained;
  write_step_page(o.page, o.setup, s, out,
                  {.stage = sim::ThroughputSetup::Stage::kDecode,
                   .length = context,
                   .draft_tokens = mtp.draft_tokens,
                   .acceptance = mtp.acceptance,
                   .cards = static_cast<double>(s.cards)});
  answer(out, choice.memory, o.page.files.json);
}

void sim_prefill(const SimPrefillOptions& o) {
  const SimSetup s = load_setup(o.setup);
  const auto batch = static_cast<double>(o.batch);
  const auto input = static_cast<double>(o.input);
  const sim::PlanSearch search = s.search();
  const sim::StepLoad load = sim::prefill_load(batch, input);
  const sim::PlanChoice choice = search.fastest(load, batch, input);
  const sim::StepBreakdown step = search.model(choice.plan).explain(load);
  ordered_json out = step_json(o.setup, s, choice, step, batch * input);
  out["stage"] = "prefill";
  out["batch"] = o.batch;
  out["input"] = o.input;
  write_step_page(o.page, o.setup, s, out,
                  {.stage = sim::ThroughputSetup::Stage::kPrefill,
                   .length = input,
                   .cards = static_cast<double>(s.cards)});
  answer(out, choice.memory, o.page.files.json);
}

}  // namespace

std::vector<Command> sim_step_commands() {
  return {
      make_command<SimDecodeOptions>(
          {"sim decode", "predicts one decoding step: latency, tokens/s a card, plan, memory",
           "Adds up every kernel and collective of the step (docs/sim.md) on the best plan, or on --plan.\n"
           "Needs no device.\n\n"
           "  moge sim decode --model pangu-pro-moe-72b-a16b --hardware ascend-800i-a2 --cards 4 \\\n"
           "    --batch 64 --context 2048\n"},
          sim_decode),
      make_command<SimPrefillOptions>(
          {"sim prefill", "predicts the time to the first token of a batch of prompts",
           "As sim decode; latency_ms is the time to the first token.\n\n"
           "  moge sim prefill --model dense-32b --hardware ascend-800i-a2 --cards 2 --batch 2\n"},
          sim_prefill)};
}

}  // namespace moge::cli
