#include "cli/bench_device.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/bench_runner.h"
#include "cli/json_text.h"
#include "cli/quantile.h"

namespace moge::cli {

using nlohmann::ordered_json;

DecodeLengths decode_lengths(int64_t context, int64_t warm_up, int64_t steps) {
  const int64_t before = warm_up + (steps + 1) / 2;
  const int64_t first = std::max<int64_t>(1, context - before);
  return {.first = first, .longest = first + warm_up + steps, .mean = first + before};
}

void bench_device_decode(const DeviceBenchOptions& o, const DecodeBench& b) {
  constexpr int64_t kWarmUp = 8;
  const DecodeLengths lengths = decode_lengths(b.context, kWarmUp, b.steps);
  BenchRunner bench(o, {.max_sequences = b.batch,
                        .context = lengths.longest,
                        .max_batch_tokens = 1,
                        .kv_dtype = o.model.kv_dtype,
                        .graphs = !b.eager});
  engine::Runner& runner = bench.runner();
  for (int64_t row = 0; row < b.batch; ++row) runner.start(row, lengths.longest, {.temperature = 0});
  runner.assume_context(b.batch, lengths.first);
  runner.set_tokens(bench.ids(b.batch, 1));
  for (int64_t i = 0; i < kWarmUp; ++i) runner.decode();
  std::vector<std::unique_ptr<Event>> events;
  for (int64_t i = 0; i <= b.steps; ++i) {
    events.push_back(bench.backend().make_event());
    events.back()->record();
    if (i < b.steps) runner.decode();
  }
  std::vector<double> ms;
  for (size_t i = 1; i < events.size(); ++i) ms.push_back(1e3 * events[i]->seconds_since(*events[i - 1]));
  runner.tokens(b.batch);

  const double step = median(ms);
  const Work work = bench.decode_work(b.batch, b.batch * lengths.mean);
  const double tokens_per_second = static_cast<double>(b.batch) / step * 1e3;
  ordered_json out = bench.header("decode", b.batch);
  out.update({{"context", b.context},
              {"mean_context", lengths.mean},
              {"step_ms", step},
              {"step_ms_p10", quantile(ms, 0.1)},
              {"step_ms_p90", quantile(ms, 0.9)},
              {"tokens_per_second", tokens_per_second}});
  add_work(out, work, step * 1e-3, bench.roof());
  if (b.profile)
    // The last one of a few at the mean context, from a row that holds at least one token.
    bench.profile(out, !b.eager, step, std::min(BenchRunner::kMostPasses, lengths.mean - 1), [&](int64_t n) {
      runner.assume_length(b.batch, lengths.mean - n);
      for (int64_t i = 0; i < n; ++i) runner.decode();
      return 0.0;
    });
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(3) << "step     " << step << " ms (median of " << b.steps
            << "; p10 " << quantile(ms, 0.1) << ", p90 " << quantile(ms, 0.9) << ")\n"
            << std::setprecision(1) << "decode   " << tokens_per_second << " tokens/s, " << b.batch
            << " sequences at a mean context of " << lengths.mean << '\n'
            << work_text(work, step * 1e-3, bench.roof());
  if (b.profile) std::cout << ops_text(out["ops"]);
}

void bench_device_prefill(const DeviceBenchOptions& o, const PrefillBench& b) {
  BenchRunner bench(o, {.max_sequences = b.batch,
                        .context = b.context + 1,
                        .max_batch_tokens = b.batch * b.context,
                        .kv_dtype = o.model.kv_dtype});
  engine::Runner& runner = bench.runner();
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < b.batch; ++i) prompts.push_back(bench.ids(b.context, static_cast<uint64_t>(i)));
  const std::vector<std::span<const int32_t>> pieces(prompts.begin(), prompts.end());
  const auto pass = [&] {
    for (int64_t row = 0; row < b.batch; ++row) {
      runner.stop(row);
      runner.start(row, b.context + 1, {.temperature = 0});
    }
    const auto start = std::chrono::steady_clock::now();
    runner.prefill(0, pieces);
    runner.tokens(b.batch);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  pass();
  std::vector<double> ms;
  for (int64_t i = 0; i < b.passes; ++i) ms.push_back(pass());

  const double time = median(ms);
  const auto tokens = static_cast<double>(b.batch * b.context);
  const Work work = bench.prompt_work(b.batch, b.context);
  ordered_json out = bench.header("prefill", b.batch);
  out.update({{"context", b.context},
              {"ttft_ms", time},
              {"ttft_ms_p90", quantile(ms, 0.9)},
              {"tokens_per_second", tokens / time * 1e3}});
  add_work(out, work, time * 1e-3, bench.roof());
  if (b.profile)
    bench.profile(out, false, time, BenchRunner::kMostPasses, [&](int64_t n) {
      for (int64_t i = 1; i < n; ++i) pass();
      return pass();
    });
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(2) << "prefill  " << time
            << " ms to the first token (median of " << ms.size() << "; p90 " << quantile(ms, 0.9) << "), "
            << b.batch << " x " << b.context << " tokens\n"
            << std::setprecision(0) << "         " << tokens / time * 1e3 << " tokens/s\n"
            << work_text(work, time * 1e-3, bench.roof());
  if (b.profile) std::cout << ops_text(out["ops"]);
}

void bench_device_llama(const DeviceBenchOptions& o, int64_t repeats) {
  constexpr int64_t kPrompt = 512, kGenerated = 128;
  BenchRunner bench(o, {.max_sequences = 1,
                        .context = kPrompt + 1,
                        .max_batch_tokens = kPrompt,
                        .kv_dtype = o.model.kv_dtype});
  engine::Runner& runner = bench.runner();
  const std::vector<int32_t> prompt = bench.ids(kPrompt, 1);
  const auto rate = [&](int64_t prompt_tokens, int64_t steps, double tokens) {
    std::vector<double> rates;
    for (int64_t i = 0; i <= repeats; ++i) {
      runner.stop(0);
      runner.start(0, kPrompt + 1, {.temperature = 0});
      const std::span<const int32_t> piece(prompt.data(), static_cast<size_t>(prompt_tokens));
      const auto begin = bench.backend().make_event(), end = bench.backend().make_event();
      begin->record();
      runner.prefill(0, {&piece, 1});
      for (int64_t s = 0; s < steps; ++s) runner.decode();
      end->record();
      const double seconds = end->seconds_since(*begin);
      if (i > 0) rates.push_back(tokens / seconds);  // the first one warms up
    }
    return median(rates);
  };
  const double pp = rate(kPrompt, 0, kPrompt), tg = rate(1, kGenerated - 1, kGenerated);
  const double pp_seconds = kPrompt / pp, tg_seconds = kGenerated / tg;
  const Work pp_work = bench.prompt_work(1, kPrompt);
  Work tg_work = bench.prompt_work(1, 1);
  for (int64_t position = 2; position <= kGenerated; ++position) tg_work += bench.decode_work(1, position);
  ordered_json out = bench.header("pp512 tg128", 1);
  out.update({{"pp512_tokens_per_second", pp}, {"tg128_tokens_per_second", tg}});
  add_work(out["pp512"], pp_work, pp_seconds, bench.roof());
  add_work(out["tg128"], tg_work, tg_seconds, bench.roof());
  if (o.json) {
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(1) << "pp512    " << pp << " tokens/s, " << 1e3 * pp_seconds
            << " ms\n"
            << work_text(pp_work, pp_seconds, bench.roof()) << "tg128    " << tg << " tokens/s, "
            << 1e3 * tg_seconds << " ms\n"
            << work_text(tg_work, tg_seconds, bench.roof());
}

}  // namespace moge::cli
