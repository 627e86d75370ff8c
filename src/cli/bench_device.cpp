#include "cli/bench_device.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/device_roof.h"
#include "cli/json_text.h"
#include "cli/model_path.h"
#include "cli/quantile.h"
#include "core/log.h"
#include "core/rng.h"
#include "engine/op_profile.h"
#include "engine/runner.h"
#include "model/memory_fit.h"
#include "spec/cost.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

/// A profile reads this many passes, so far apart and after so long a run, in seconds: at the limit of its
/// power a card's clocks fall and rise within a second, and after a pause they are the highest.
constexpr int kProfiles = 8;
constexpr double kProfileApart = 0.25, kProfileWarmUp = 1;
constexpr int64_t kMostPasses = 64;  ///< one after another: each makes a decoded context longer

/// The runner of a benchmark and what was measured before its memory was taken.
struct DeviceBench {
  DeviceBench(const DeviceBenchOptions& o, const engine::RunnerConfig& limits)
      : options(o), pool(static_cast<int>(o.model.threads)), backend(cuda_backend()) {
    ExecContext ctx{.device = {DeviceKind::kCuda, 0}, .pool = &pool, .backend = &backend};
    spec::ModelConfig config = spec::load_model_config(find_model(o.model.model));
    if (o.layers > 0) config.num_hidden_layers = std::min(o.layers, config.num_hidden_layers);
    check<UsageError>(limits.context <= config.max_position_embeddings,
                      o.model.context ? str("--context ", *o.model.context, ": ") : "",
                      "sequences of this benchmark grow to ", limits.context,
                      " tokens, expected at most the model's max_position_embeddings, ",
                      config.max_position_embeddings);
    using Offer = engine::Runner::Offer;
    const Offer offer = o.model.random_weights ? Offer::kLayersToo  // --layers
                                               : Offer::kSequencesAndContext;
    const engine::RunnerPlan plan =
        engine::Runner::plan_that_fits(ctx, config, o.model.dtype, limits, model::free_bytes(ctx), offer);
    log_info("memory plan: ", plan.str());
    roof = measure_roof(backend, o.model.dtype);
    const auto start = std::chrono::steady_clock::now();
    model::ServingModel model = load_on_device(ctx, o.model, o.layers);
    runner = std::make_unique<engine::Runner>(ctx, std::move(model), limits, plan);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    log_info(backend.info().name, ": ready in ", seconds.count(), " s");
  }

  ordered_json header(const char* what) const {
    const spec::ModelConfig& c = runner->config();
    return {{"benchmark", what},
            {"device", backend.info().name},
            {"model", options.model.model},
            {"layers", c.num_hidden_layers},
            {"weights", name_of(options.model.dtype)},
            {"kv_dtype", name_of(options.model.kv_dtype)},
            {"batch", options.batch},
            {"context", options.context},
            {"memory_bytes", runner->memory_plan().total()},
            {"copy_bandwidth", roof.copy},
            {"product_ceiling", roof.product}};
  }
  /// One decode step of `batch` sequences that attend to `positions` positions together.
  Work decode_work(int64_t batch, int64_t positions) const {
    const int64_t context = (positions + batch / 2) / batch;
    return {
        roof, spec::decode_step_bytes(runner->config(), batch, context, format()),
        static_cast<double>(batch) * spec::flops_per_token(runner->config(), context, spec::Phase::kDecode)};
  }
  /// One pass over `prompts` whole prompts of `tokens` each.
  Work prompt_work(int64_t prompts, int64_t tokens) const {
    return {roof, spec::prompt_bytes(runner->config(), prompts, tokens, format()),
            spec::prompt_flops(runner->config(), prompts, tokens)};
  }
  spec::ServingFormat format() const {
    return {.weights = options.model.dtype, .kv = options.model.kv_dtype};
  }
  std::vector<int32_t> ids(int64_t count, uint64_t stream) const {
    return random_ids(runner->config(), count, static_cast<uint64_t>(options.model.seed), stream);
  }
  /// Adds the times by op, each call's median over several passes that take about pass_ms. A pass that is a
  /// graph is recorded anew, with events in it. `passes` runs n of them, at most `most`, and returns the
  /// milliseconds until the last one's tokens were on the host, or 0.
  void profile(ordered_json& out, bool is_graph, double pass_ms, int64_t most,
               const std::function<double(int64_t)>& passes) {
    ExecContext& ctx = runner->context();
    std::unique_ptr<engine::OpProfile> profile;
    const auto observe = [&] {
      profile = std::make_unique<engine::OpProfile>(backend);
      ctx.observer = profile.get();
    };
    if (is_graph) {
      observe();
      runner->set_graphs(true);
    }
    const auto run_for = [&](double seconds) {
      const double count = std::clamp(seconds * 1e3 / pass_ms, 1.0, static_cast<double>(most));
      for (double left = seconds * 1e3 / pass_ms; left > 0; left -= count)
        passes(static_cast<int64_t>(count));
    };
    std::vector<std::vector<double>> profiles;  // seconds of each call
    std::vector<double> host_ms;
    run_for(kProfileWarmUp);
    for (int i = 0; i < kProfiles; ++i) {
      run_for(kProfileApart);
      if (!is_graph) observe();
      const double ms = passes(1);
      if (!is_graph) ctx.observer = nullptr;
      profiles.push_back(profile->call_seconds());
      host_ms.push_back(ms - profile->pass_seconds() * 1e3);
    }
    std::vector<double> medians;
    for (size_t call = 0; call < profiles[0].size(); ++call) {
      std::vector<double> seconds;
      for (const std::vector<double>& one : profiles) seconds.push_back(one[call]);
      medians.push_back(median(seconds));
    }
    out["event_ms"] = profile->event_seconds() * 1e3;
    // Before the first op and after the last. Decode passes, which follow each other, tell no such time.
    if (const double ms = median(host_ms); ms > 0) out["host_ms"] = ms;
    for (const engine::OpProfile::Line& line : profile->lines(medians)) {
      ordered_json calls = ordered_json::array();
      for (const double seconds : line.call_seconds) calls.push_back(seconds * 1e3);
      out["ops"].push_back(
          {{"op", line.op}, {"calls", calls.size()}, {"ms", line.seconds * 1e3}, {"call_ms", calls}});
    }
    ctx.observer = nullptr;
    if (is_graph) runner->set_graphs(true);
  }
  void print_ops(const ordered_json& ops) const {
    for (const ordered_json& op : ops)
      std::cout << "  " << std::left << std::setw(18) << op["op"].get<std::string>() << std::right
                << std::setw(6) << op["calls"].get<int64_t>() << " calls" << std::setw(10)
                << op["ms"].get<double>() << " ms\n";
  }

  const DeviceBenchOptions& options;
  ThreadPool pool;
  Backend& backend;
  DeviceRoof roof;
  std::unique_ptr<engine::Runner> runner;
};

}  // namespace

DecodeLengths decode_lengths(int64_t context, int64_t warm_up, int64_t steps) {
  const int64_t before = warm_up + (steps + 1) / 2;
  const int64_t first = std::max<int64_t>(1, context - before);
  return {.first = first, .longest = first + warm_up + steps, .mean = first + before};
}

void bench_device_decode(const DeviceBenchOptions& o) {
  constexpr int64_t kWarmUp = 8;
  const DecodeLengths lengths = decode_lengths(o.context, kWarmUp, o.steps);
  DeviceBench bench(o, {.max_sequences = o.batch,
                        .context = lengths.longest,
                        .max_batch_tokens = 1,
                        .kv_dtype = o.model.kv_dtype,
                        .graphs = !o.eager});
  engine::Runner& runner = *bench.runner;
  for (int64_t row = 0; row < o.batch; ++row) runner.start(row, lengths.longest, {.temperature = 0});
  runner.assume_context(o.batch, lengths.first);
  runner.set_tokens(bench.ids(o.batch, 1));
  for (int64_t i = 0; i < kWarmUp; ++i) runner.decode();
  std::vector<std::unique_ptr<Event>> events;
  for (int64_t i = 0; i <= o.steps; ++i) {
    events.push_back(bench.backend.make_event());
    events.back()->record();
    if (i < o.steps) runner.decode();
  }
  std::vector<double> ms;
  for (size_t i = 1; i < events.size(); ++i) ms.push_back(1e3 * events[i]->seconds_since(*events[i - 1]));
  runner.tokens(o.batch);

  const double step = median(ms);
  const Work work = bench.decode_work(o.batch, o.batch * lengths.mean);
  const double tokens_per_second = static_cast<double>(o.batch) / step * 1e3;
  ordered_json out = bench.header("decode");
  out.update({{"mean_context", lengths.mean},
              {"step_ms", step},
              {"step_ms_p10", quantile(ms, 0.1)},
              {"step_ms_p90", quantile(ms, 0.9)},
              {"tokens_per_second", tokens_per_second}});
  add_work(out, work, step * 1e-3, bench.roof);
  if (o.profile)
    // The last one of a few at the mean context, from a row that holds at least one token.
    bench.profile(out, !o.eager, step, std::min(kMostPasses, lengths.mean - 1), [&](int64_t n) {
      runner.assume_length(o.batch, lengths.mean - n);
      for (int64_t i = 0; i < n; ++i) runner.decode();
      return 0.0;
    });
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(3) << "step     " << step << " ms (median of " << o.steps
            << "; p10 " << quantile(ms, 0.1) << ", p90 " << quantile(ms, 0.9) << ")\n"
            << std::setprecision(1) << "decode   " << tokens_per_second << " tokens/s, " << o.batch
            << " sequences at a mean context of " << lengths.mean << '\n'
            << work_text(work, step * 1e-3, bench.roof) << std::setprecision(3);
  if (o.profile) bench.print_ops(out["ops"]);
}

void bench_device_prefill(const DeviceBenchOptions& o) {
  DeviceBench bench(o, {.max_sequences = o.batch,
                        .context = o.context + 1,
                        .max_batch_tokens = o.batch * o.context,
                        .kv_dtype = o.model.kv_dtype});
  engine::Runner& runner = *bench.runner;
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < o.batch; ++i) prompts.push_back(bench.ids(o.context, static_cast<uint64_t>(i)));
  const std::vector<std::span<const int32_t>> pieces(prompts.begin(), prompts.end());
  const auto pass = [&] {
    for (int64_t row = 0; row < o.batch; ++row) {
      runner.stop(row);
      runner.start(row, o.context + 1, {.temperature = 0});
    }
    const auto start = std::chrono::steady_clock::now();
    runner.prefill(0, pieces);
    runner.tokens(o.batch);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  pass();
  std::vector<double> ms;
  for (int64_t i = 0; i < o.steps; ++i) ms.push_back(pass());

  const double time = median(ms);
  const auto tokens = static_cast<double>(o.batch * o.context);
  const Work work = bench.prompt_work(o.batch, o.context);
  ordered_json out = bench.header("prefill");
  out.update(
      {{"ttft_ms", time}, {"ttft_ms_p90", quantile(ms, 0.9)}, {"tokens_per_second", tokens / time * 1e3}});
  add_work(out, work, time * 1e-3, bench.roof);
  if (o.profile)
    bench.profile(out, false, time, kMostPasses, [&](int64_t n) {
      for (int64_t i = 1; i < n; ++i) pass();
      return pass();
    });
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(2) << "prefill  " << time
            << " ms to the first token (median of " << ms.size() << "; p90 " << quantile(ms, 0.9) << "), "
            << o.batch << " x " << o.context << " tokens\n"
            << std::setprecision(0) << "         " << tokens / time * 1e3 << " tokens/s\n"
            << work_text(work, time * 1e-3, bench.roof) << std::setprecision(3);
  if (o.profile) bench.print_ops(out["ops"]);
}

void bench_device_serve(const DeviceBenchOptions& o) {
  const int64_t longest = o.context + o.steps * 3 / 2 + 1;
  DeviceBench bench(o, {.max_sequences = o.batch,
                        .context = longest,
                        .max_batch_tokens = std::max<int64_t>(o.context, 4096),
                        .kv_dtype = o.model.kv_dtype});
  engine::Runner& runner = *bench.runner;
  struct Client {
    int64_t request = -1, left = 0;  // tokens to come
    Event* begin = nullptr;
    Event* first = nullptr;
  };
  std::vector<Client> clients(static_cast<size_t>(o.batch));
  std::vector<std::unique_ptr<Event>> events;
  const auto now = [&]() -> Event* {
    events.push_back(bench.backend.make_event());
    events.back()->record();
    return events.back().get();
  };
  struct Served {
    Event *begin, *first, *last;
    int64_t tokens;
  };
  std::vector<Served> served;
  Rng lengths(static_cast<uint64_t>(o.model.seed), 99);
  int64_t next_request = 0, answer_tokens = 0;
  Work work;
  Event* const begin = now();
  Event* last_pass = begin;
  while (true) {
    // New prompts first: the rows that wait, as many as a pass takes, side by side.
    const auto waits = [](const Client& c) { return c.left == 0; };
    const auto first = std::ranges::find_if(clients, waits);
    if (first != clients.end() && next_request < o.requests) {
      std::vector<std::vector<int32_t>> prompts;
      const int64_t first_row = first - clients.begin();
      auto client = first;
      for (; client != clients.end() && waits(*client) && next_request < o.requests &&
             std::ssize(prompts) < runner.limits().max_batch_tokens / o.context;
           ++client) {
        const int64_t row = client - clients.begin();
        const int64_t answer = o.steps / 2 + lengths.next_below(static_cast<uint32_t>(o.steps) + 1);
        client->request = next_request++;
        client->left = std::max<int64_t>(answer, 2) - 1;
        client->begin = last_pass;
        answer_tokens += client->left + 1;
        runner.start(row, o.context + client->left + 1, {.temperature = 0});
        prompts.push_back(bench.ids(o.context, static_cast<uint64_t>(client->request)));
      }
      runner.prefill(first_row, std::vector<std::span<const int32_t>>(prompts.begin(), prompts.end()));
      last_pass = now();
      work += bench.prompt_work(std::ssize(prompts), o.context);
      for (auto c = first; c != client; ++c) c->first = last_pass;
      continue;
    }
    if (std::ranges::all_of(clients, waits)) break;
    runner.decode();
    last_pass = now();
    int64_t decoding = 0, positions = 0;
    for (size_t row = 0; row < clients.size(); ++row) {
      Client& c = clients[row];
      if (c.left == 0) continue;
      ++decoding;
      positions += runner.length(static_cast<int64_t>(row));
      if (--c.left > 0) continue;
      const int64_t tokens = runner.length(static_cast<int64_t>(row)) - o.context + 1;
      served.push_back({c.begin, c.first, last_pass, tokens});
      runner.stop(static_cast<int64_t>(row));
    }
    work += bench.decode_work(decoding, positions);
  }
  const double seconds = last_pass->seconds_since(*begin);
  std::vector<double> ttft, tpot;
  for (const Served& s : served) {
    ttft.push_back(1e3 * s.first->seconds_since(*s.begin));
    tpot.push_back(1e3 * s.last->seconds_since(*s.first) / static_cast<double>(s.tokens - 1));
  }
  ordered_json out = bench.header("serve-like");
  out.update({{"requests", served.size()},
              {"seconds", seconds},
              {"prompt_tokens_per_second", static_cast<double>(o.requests * o.context) / seconds},
              {"answer_tokens_per_second", static_cast<double>(answer_tokens) / seconds},
              {"ttft_ms", quantile(ttft, 0.5)},
              {"ttft_ms_p90", quantile(ttft, 0.9)},
              {"tpot_ms", quantile(tpot, 0.5)},
              {"tpot_ms_p90", quantile(tpot, 0.9)}});
  add_work(out, work, seconds, bench.roof);
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(1) << served.size() << " requests of " << o.context
            << " + about " << o.steps << " tokens, " << o.batch << " at a time: " << seconds
            << " s\nprompts  " << static_cast<double>(o.requests * o.context) / seconds
            << " tokens/s; to the first token " << quantile(ttft, 0.5) << " ms (p90 " << quantile(ttft, 0.9)
            << ")\nanswers  " << static_cast<double>(answer_tokens) / seconds << " tokens/s; between tokens "
            << quantile(tpot, 0.5) << " ms (p90 " << quantile(tpot, 0.9) << ")\n"
            << work_text(work, seconds, bench.roof);
}

void bench_device_llama(const DeviceBenchOptions& o) {
  constexpr int64_t kPrompt = 512, kGenerated = 128;
  DeviceBench bench(o, {.max_sequences = 1,
                        .context = kPrompt + 1,
                        .max_batch_tokens = kPrompt,
                        .kv_dtype = o.model.kv_dtype});
  engine::Runner& runner = *bench.runner;
  const std::vector<int32_t> prompt = bench.ids(kPrompt, 1);
  const auto rate = [&](int64_t prompt_tokens, int64_t steps, double tokens) {
    std::vector<double> rates;
    for (int64_t i = 0; i <= o.steps; ++i) {
      runner.stop(0);
      runner.start(0, kPrompt + 1, {.temperature = 0});
      const std::span<const int32_t> piece(prompt.data(), static_cast<size_t>(prompt_tokens));
      const auto begin = bench.backend.make_event(), end = bench.backend.make_event();
      begin->record();
      runner.prefill(0, {&piece, 1});
      for (int64_t s = 0; s < steps; ++s) runner.decode();
      end->record();
      const double seconds = end->seconds_since(*begin);
      if (i > 0) rates.push_back(tokens / seconds);  // the first one warms up
    }
    return quantile(rates, 0.5);
  };
  const double pp = rate(kPrompt, 0, kPrompt), tg = rate(1, kGenerated - 1, kGenerated);
  const double pp_seconds = kPrompt / pp, tg_seconds = kGenerated / tg;
  const Work pp_work = bench.prompt_work(1, kPrompt);
  Work tg_work = bench.prompt_work(1, 1);
  for (int64_t position = 2; position <= kGenerated; ++position) tg_work += bench.decode_work(1, position);
  ordered_json out = bench.header("pp512 tg128");
  out.erase("context");
  out.update({{"pp512_tokens_per_second", pp}, {"tg128_tokens_per_second", tg}});
  add_work(out["pp512"], pp_work, pp_seconds, bench.roof);
  add_work(out["tg128"], tg_work, tg_seconds, bench.roof);
  if (o.json)
    print_json(out, 2);
  else
    std::cout << std::fixed << std::setprecision(1) << "pp512    " << pp << " tokens/s, " << 1e3 * pp_seconds
              << " ms\n"
              << work_text(pp_work, pp_seconds, bench.roof) << "tg128    " << tg << " tokens/s, "
              << 1e3 * tg_seconds << " ms\n"
              << work_text(tg_work, tg_seconds, bench.roof);
}

}  // namespace moge::cli
