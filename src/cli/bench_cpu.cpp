#include "cli/bench_cpu.h"

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/json_text.h"
#include "cli/quantile.h"
#include "ops/machine.h"
#include "spec/cost.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

/// One generation between two measurements of what it is compared with.
struct Round {
  engine::Generation generation;
  ops::Rate roof;  ///< what this machine reaches, the mean of before and after
  double total_seconds() const { return generation.prefill_seconds + generation.decode_seconds; }
};

/// 0 where there is no roof.
double percent(double rate, double roof) {
  return roof > 0 ? 100 * rate / roof : 0;
}

template <class Value>
double quantile(const std::vector<Round>& rounds, double q, const Value& value) {
  std::vector<double> values;
  for (const Round& r : rounds) values.push_back(value(r));
  return cli::quantile(std::move(values), q);
}
template <class Value>
double median(const std::vector<Round>& rounds, const Value& value) {
  return quantile(rounds, 0.5, value);
}

/// Greedy generations from random prompts, each from an empty cache.
class CpuBench {
 public:
  explicit CpuBench(const CpuBenchOptions& o) : options_(o), model_(o.model) {}

  engine::Generation generate(int64_t prompt_tokens, int64_t max_tokens) {
    const std::vector<int32_t> prompt =
        random_ids(model_.config(), prompt_tokens, static_cast<uint64_t>(options_.model.seed), 1);
    const std::atomic<bool> never{false};
    model_.generator().sequence().truncate(0);
    return model_.generator().generate(
        prompt, {.sampling = {.temperature = 0}, .max_tokens = max_tokens}, [](int32_t) { return true; },
        never);
  }

  /// `roof()` is measured between the rounds.
  std::vector<Round> rounds(int64_t max_tokens, const auto& roof) {
    generate(options_.prompt_tokens, std::min<int64_t>(max_tokens, 2));  // touches every page
    std::vector<Round> rounds;
    ops::Rate before = roof();
    for (int64_t i = 0; i < options_.rounds; ++i) {
      engine::Generation generation = generate(options_.prompt_tokens, max_tokens);
      const ops::Rate after = roof();
      rounds.push_back(
          {std::move(generation), {(before.best + after.best) / 2, (before.mean + after.mean) / 2}});
      before = after;
    }
    return rounds;
  }

  /// What a report in JSON begins with.
  ordered_json header(const char* benchmark) {
    return {{"benchmark", benchmark},
            {"device", "cpu"},
            {"num_threads", num_threads()},
            {"model", options_.model.model},
            {"layers", config().num_hidden_layers},
            {"weights", name_of(options_.model.dtype)},
            {"kv_dtype", name_of(options_.model.kv_dtype)},
            {"batch", 1}};
  }
  const spec::ModelConfig& config() { return model_.config(); }
  ExecContext& exec_context() { return model_.exec_context(); }
  int num_threads() { return exec_context().pool->num_threads(); }
  int64_t memory_bytes() { return model_.generator().sequence().memory_bytes(); }

 private:
  const CpuBenchOptions& options_;
  ServedModel model_;
};

/// With room for exactly `tokens`.
CpuBenchOptions with_context(CpuBenchOptions o, int64_t tokens) {
  o.model.context = tokens;
  return o;
}

}  // namespace

void bench_cpu_decode(const CpuBenchOptions& o) {
  CpuBench bench(o);
  const ops::ReadCeiling ceiling(bench.exec_context());
  const std::vector<Round> rounds = bench.rounds(o.max_tokens, [&] { return ceiling.measure(); });
  const double prefill =
      median(rounds, [](const Round& r) { return r.generation.prefill_tokens_per_second(); });
  const double tokens =
      median(rounds, [](const Round& r) { return r.generation.decode_tokens_per_second(); });
  const double bytes = median(rounds, [](const Round& r) { return r.generation.decode_bytes_per_second(); });
  const double roof = median(rounds, [](const Round& r) { return r.roof.best; });
  const double sustained = median(rounds, [](const Round& r) { return r.roof.mean; });
  const auto of_roof = [](const Round& r) {
    return percent(r.generation.decode_bytes_per_second(), r.roof.best);
  };
  const auto of_sustained = [](const Round& r) {
    return percent(r.generation.decode_bytes_per_second(), r.roof.mean);
  };
  const int64_t steps = rounds.front().generation.decode_steps;
  if (o.json) {
    ordered_json out = {{"model", o.model.model},
                        {"num_threads", bench.num_threads()},
                        {"dtype", name_of(o.model.dtype)},
                        {"kv_dtype", name_of(o.model.kv_dtype)},
                        {"prompt_tokens", o.prompt_tokens},
                        {"prefill_tokens_per_second", prefill},
                        {"decode_steps", steps},
                        {"decode_tokens_per_second", tokens},
                        {"decode_bytes_per_second", bytes},
                        {"read_bandwidth", roof},
                        {"percent_of_read_bandwidth", median(rounds, of_roof)},
                        {"sustained_read_bandwidth", sustained},
                        {"percent_of_sustained_read_bandwidth", median(rounds, of_sustained)},
                        {"rounds", ordered_json::array()}};
    for (const Round& r : rounds)
      out["rounds"].push_back({{"decode_bytes_per_second", r.generation.decode_bytes_per_second()},
                               {"read_bandwidth", r.roof.best},
                               {"percent_of_read_bandwidth", of_roof(r)},
                               {"sustained_read_bandwidth", r.roof.mean},
                               {"percent_of_sustained_read_bandwidth", of_sustained(r)}});
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(1) << "prefill  " << prefill << " tokens/s ("
            << o.prompt_tokens << " tokens)\ndecode   " << tokens << " tokens/s (" << steps
            << " steps)\nreads    " << bytes * 1e-9 << " GB/s, " << median(rounds, of_roof) << "% of the "
            << roof * 1e-9 << " GB/s that this machine reads at its best, " << median(rounds, of_sustained)
            << "% of the " << sustained * 1e-9 << " that it reads for 0.1 s\n         medians of "
            << rounds.size() << " rounds; percent of the best by round:";
  for (const Round& r : rounds) std::cout << ' ' << of_roof(r);
  std::cout << '\n';
}

void bench_cpu_prefill(const CpuBenchOptions& options) {
  const CpuBenchOptions o = with_context(options, options.prompt_tokens);
  CpuBench bench(o);
  const std::vector<Round> rounds =
      bench.rounds(1, [&] { return ops::measure_products(bench.exec_context(), o.model.dtype); });
  const double flops = spec::prompt_flops(bench.config(), 1, o.prompt_tokens);
  const auto milliseconds = [](const Round& r) { return 1e3 * r.total_seconds(); };
  const auto percent_of = [&](const Round& r) { return percent(flops / r.total_seconds(), r.roof.best); };
  const double time = median(rounds, milliseconds), time_p90 = quantile(rounds, 0.9, milliseconds);
  const double tokens = static_cast<double>(o.prompt_tokens) / time * 1e3;
  const double roof = median(rounds, [](const Round& r) { return r.roof.best; });
  if (o.json) {
    ordered_json out = bench.header("prefill");
    out.update({{"context", o.prompt_tokens},
                {"memory_bytes", bench.memory_bytes()},
                {"ttft_ms", time},
                {"ttft_ms_p90", time_p90},
                {"tokens_per_second", tokens},
                {"flops", flops},
                {"flops_per_second", flops / time * 1e3},
                {"product_ceiling", roof},
                {"percent_of_product_ceiling", median(rounds, percent_of)},
                {"rounds", ordered_json::array()}});
    for (const Round& r : rounds)
      out["rounds"].push_back({{"ttft_ms", milliseconds(r)},
                               {"product_ceiling", r.roof.best},
                               {"percent_of_product_ceiling", percent_of(r)}});
    print_json(out, 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(2) << "prefill  " << time
            << " ms to the first token (median of " << rounds.size() << "; p90 " << time_p90 << "), "
            << o.prompt_tokens << " tokens\n"
            << std::setprecision(1) << "         " << tokens << " tokens/s, " << flops / time * 1e-6
            << " GFLOP/s, " << median(rounds, percent_of) << "% of the " << roof * 1e-9
            << " that this machine does in " << name_of(o.model.dtype) << "; by round:";
  for (const Round& r : rounds) std::cout << ' ' << percent_of(r);
  std::cout << '\n';
}

void bench_cpu_llama(const CpuBenchOptions& options) {
  constexpr int64_t kPrompt = 512, kGenerated = 128;
  const CpuBenchOptions o = with_context(options, kPrompt);
  CpuBench bench(o);
  const auto rate = [&](int64_t prompt_tokens, int64_t max_tokens, int64_t counted) {
    bench.generate(prompt_tokens, max_tokens);  // warms up
    std::vector<Round> rounds;
    for (int64_t i = 0; i < o.rounds; ++i) rounds.push_back({bench.generate(prompt_tokens, max_tokens), {}});
    return median(rounds, [&](const Round& r) { return static_cast<double>(counted) / r.total_seconds(); });
  };
  const double pp = rate(kPrompt, 1, kPrompt), tg = rate(1, kGenerated, kGenerated);
  if (o.json) {
    ordered_json out = bench.header("pp512 tg128");
    out.update({{"memory_bytes", bench.memory_bytes()},
                {"pp512_tokens_per_second", pp},
                {"tg128_tokens_per_second", tg}});
    print_json(out, 2);
  } else {
    std::cout << std::fixed << std::setprecision(1) << "pp512  " << pp << " tokens/s\ntg128  " << tg
              << " tokens/s\n";
  }
}

}  // namespace moge::cli
