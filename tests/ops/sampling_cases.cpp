#include "ops/sampling.h"

#include <algorithm>
#include <limits>

#include "ops/harness.h"

namespace moge::test {
namespace {

using ops::Sampling;

struct Settings {
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1, min_p = 0, repetition = 1, presence = 0, frequency = 0;
};

/// Row b has settings[b % n], seed b / 3 and step b, so that neither alone makes the draw.
Sampling make(Inputs& in, const Tensor& logits, const std::vector<Settings>& settings) {
  const int64_t B = logits.dim(0);
  const auto column = [&](auto Settings::*member) {
    std::vector<std::remove_cvref_t<decltype(settings[0].*member)>> v;
    for (int64_t b = 0; b < B; ++b) v.push_back(settings[b % settings.size()].*member);
    return in.values(v);
  };
  std::vector<int64_t> seeds, steps;
  for (int64_t b = 0; b < B; ++b) {
    seeds.push_back(b / 3);
    steps.push_back(b);
  }
  return {.tokens = in.output({B}, DType::kI32),
          .logprobs = in.output({B}),
          .logits = logits,
          .temperature = column(&Settings::temperature),
          .top_k = column(&Settings::top_k),
          .top_p = column(&Settings::top_p),
          .min_p = column(&Settings::min_p),
          .repetition_penalty = column(&Settings::repetition),
          .presence_penalty = column(&Settings::presence),
          .frequency_penalty = column(&Settings::frequency),
          .output_counts = {},
          .prompt_mask = {},
          .seeds = in.values(seeds),
          .steps = in.values(steps)};
}

void add_history(Inputs& in, Sampling& a) {
  const int64_t B = a.logits.dim(0), V = a.logits.dim(1);
  a.output_counts = in.ints({B, V}, -4, 3);
  for (int32_t& n : elements<int32_t>(a.output_counts)) n = std::max(n, 0);
  a.prompt_mask = in.zeros({B, V}, DType::kU8);
  Rng rng = in.rng();
  for (uint8_t& m : elements<uint8_t>(a.prompt_mask)) m = rng.next_below(4) == 0;
}

const std::vector<Settings> kMixed{
    {.temperature = 0},
    {},
    {.temperature = 0.7F},
    {.top_k = 1},
    {.top_k = 5},
    {.top_k = 700},
    {.top_p = 0.9F},
    {.temperature = 3, .top_p = 0.98F},
    {.top_p = 0},
    {.min_p = 0.05F},
    {.min_p = 1},
    {.temperature = 0.8F, .top_k = 40, .top_p = 0.95F, .min_p = 0.02F},
    {.temperature = 1e-30F},
    {.temperature = 0, .repetition = 1.3F, .presence = 0.5F, .frequency = 0.2F},
    {.top_k = 20, .repetition = 1.3F},
    {.top_p = 0.8F, .presence = 1, .frequency = -0.5F}};

/// The reference's probabilities of a row's tokens, from its definition: counts of many draws must fit them.
std::string fits_distribution(const std::string& name, const Settings& s,
                              const std::vector<double>& expected) {
  constexpr int64_t kDraws = 20'000;
  const auto V = static_cast<int64_t>(expected.size());
  Inputs in(kSeed);
  const Tensor logits = in.zeros({kDraws, V});
  for (int64_t b = 0; b < kDraws; ++b)
    for (int64_t v = 0; v < V; ++v) logits.ptr<float>()[b * V + v] = static_cast<float>(v) / 4;
  const Sampling a = make(in, logits, {s});
  Bench(2).run(ops::sampling_table(), find_impl(ops::sampling_table(), name), a);
  std::vector<double> counts(V);
  for (const int32_t token : elements<int32_t>(a.tokens)) ++counts[token];
  double chi2 = 0, cells = 0;
  for (int64_t v = 0; v < V; ++v) {
    if (expected[v] == 0 && counts[v] > 0) return str("token ", v, " was filtered out, drawn ", counts[v]);
    if (expected[v] == 0) continue;
    const double mean = expected[v] * kDraws;
    chi2 += (counts[v] - mean) * (counts[v] - mean) / mean;
    ++cells;
  }
  // Chi-square with k degrees of freedom: mean k, variance 2k; five standard deviations.
  const double k = cells - 1, bound = k + 5 * std::sqrt(2 * k);
  return chi2 <= bound ? "" : str("chi-square ", chi2, ", bound ", bound);
}

/// exp(v / 4 / temperature) over tokens first .. V-1, normalised.
std::vector<double> softmax_from(int64_t first, int64_t V, double temperature) {
  std::vector<double> p(V);
  double sum = 0;
  for (int64_t v = first; v < V; ++v) sum += p[v] = std::exp(static_cast<double>(v) / 4 / temperature);
  for (double& x : p) x /= sum;
  return p;
}

/// Each row of a batch again, alone.
std::string same_alone(const std::string& name) {
  const Impl<Sampling>& impl = find_impl(ops::sampling_table(), name);
  Inputs in(kSeed);
  Sampling batch = make(in, in.normal({32, 777}, 3), kMixed);
  add_history(in, batch);
  Bench bench(2);
  bench.run(ops::sampling_table(), impl, batch);
  for (int64_t b = 0; b < 32; ++b) {
    Sampling one = batch;
    for (Tensor Sampling::*t :
         {&Sampling::logits, &Sampling::temperature, &Sampling::top_k, &Sampling::top_p, &Sampling::min_p,
          &Sampling::repetition_penalty, &Sampling::presence_penalty, &Sampling::frequency_penalty,
          &Sampling::output_counts, &Sampling::prompt_mask, &Sampling::seeds, &Sampling::steps})
      one.*t = (batch.*t).slice(0, b, b + 1);
    one.tokens = in.output({1}, DType::kI32);
    one.logprobs = in.output({1});
    bench.run(ops::sampling_table(), impl, one);
    for (Tensor Sampling::*t : {&Sampling::tokens, &Sampling::logprobs})
      if (!same_bits("", (batch.*t).slice(0, b, b + 1), one.*t).empty()) return str("row ", b, " differs");
  }
  return "";
}

/// The documented behaviour of values without a meaning, and of ties.
std::string edges(const std::string& name) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  struct Edge {
    std::vector<float> logits;
    Settings settings;
    int32_t token;
  };
  for (const auto& [logits, settings, token] :
       {Edge{{1, 3, 3, 2}, {.temperature = 0}, 1}, Edge{{1, 3, 3, 2}, {.temperature = -1}, 1},
        Edge{{1, 3, 3, 2}, {.temperature = nan}, 1}, Edge{{1, 3, 3, 2}, {.top_k = 1}, 1},
        Edge{{1, 3, 3, 2}, {.top_p = -1}, 1}, Edge{{1, 3, 3, 2}, {.min_p = 7}, 1},
        Edge{{nan, 3, nan, 2}, {.temperature = 0}, 1}, Edge{{nan, nan, 1, nan}, {}, 2},
        Edge{{0, inf, inf, 2}, {}, 1}, Edge{{nan, nan, -inf, nan}, {}, 0},
        Edge{{-inf, -inf, -5, -inf}, {.temperature = 2, .top_p = 0.9F}, 2},
        Edge{{0, 9, 0, 0},
             {.temperature = 0.01F,
             .top_k = -3,
             .top_p = nan,
             .min_p = nan,
             .repetition = nan,
             .presence = nan},
             1}}) {
    Inputs in(kSeed);
    const Sampling a = make(in, in.values(logits).view({1, 4}), {settings});
    Bench(1).run(ops::sampling_table(), find_impl(ops::sampling_table(), name), a);
    const int32_t got = a.tokens.ptr<int32_t>()[0];
    if (got != token)
      return str("logits ", logits[0], " ", logits[1], " ", logits[2], " ", logits[3], ": expected token ",
                 token, ", got ", got);
  }
  return "";
}

void add_check(const std::string& params, const std::function<std::string(const std::string&)>& check) {
  AnyCase any = erase(ops::sampling_table(), params);
  any.test = check;
  any.refusal = [](const std::string& impl) {
    Inputs in(kSeed);
    return find_impl(ops::sampling_table(), impl).supports(make(in, in.zeros({1, 4}), {{}}));
  };
  all_cases().push_back(std::move(any));
}

const Cases cases([] {
  for (const auto& [B, V, history] : {std::tuple<int64_t, int64_t, bool>{16, 1, false},
                                      {48, 63, true},
                                      {48, 1000, false},
                                      {64, 5003, true},
                                      {16, 153'376, true},
                                      {0, 10, false}}) {
    add<Sampling>(ops::sampling_table(),
                  {.params = str("mixed B=", B, " V=", V, history ? " history" : ""),
                   .make =
                       [=](Inputs& in) {
                         Sampling a = make(in, in.normal({B, V}, 3), kMixed);
                         if (history) add_history(in, a);
                         return a;
                       },
                   // A vector's exp is within 2 ulp; sums of lanes walk at random.
                   .outputs = {{"tokens", &Sampling::tokens}, {"logprobs", &Sampling::logprobs, 64}},
                   .slow_races = V > 5000});
  }
  // A row's work is dealt out to the more blocks the fewer rows there are.
  for (const auto& [B, V] : {std::pair<int64_t, int64_t>{3, 1000}, {1, 153'376}, {3, 153'376}}) {
    add<Sampling>(ops::sampling_table(),
                  {.params = str("few B=", B, " V=", V, " history"),
                   .make =
                       [B = B, V = V](Inputs& in) {
                         Sampling a = make(in, in.normal({B, V}, 3),
                                           {{.top_p = 0.95F},
                                            {.top_k = 20, .top_p = 0.9F, .repetition = 1.3F},
                                            {.temperature = 0.7F, .min_p = 0.01F, .presence = 1}});
                         add_history(in, a);
                         return a;
                       },
                   .outputs = {{"tokens", &Sampling::tokens}, {"logprobs", &Sampling::logprobs, 64}},
                   .slow_races = V > 5000});
  }
  // A nucleus of thousands that ends among equal logits.
  add<Sampling>(ops::sampling_table(),
                {.params = "ties B=24 V=20000 top_p",
                 .make =
                     [](Inputs& in) {
                       const Tensor logits = in.zeros({24, 20'000});
                       Rng rng = in.rng();
                       for (float& x : elements<float>(logits)) x = static_cast<float>(rng.next_below(5)) / 2;
                       return make(in, logits, {{.top_p = 0.99F}, {.top_p = 0.7F}, {.top_p = 0.2F}});
                     },
                 .outputs = {{"tokens", &Sampling::tokens}, {"logprobs", &Sampling::logprobs, 64}}});
  add_check("distribution",
            [](const std::string& impl) { return fits_distribution(impl, {}, softmax_from(0, 20, 1)); });
  add_check("distribution temperature 2", [](const std::string& impl) {
    return fits_distribution(impl, {.temperature = 2}, softmax_from(0, 20, 2));
  });
  add_check("distribution top_k 6", [](const std::string& impl) {
    return fits_distribution(impl, {.top_k = 6}, softmax_from(14, 20, 1));
  });
  // exp(-k / 4): min-p 0.3 keeps k <= 4 (0.37), not 5 (0.287).
  add_check("distribution min_p 0.3", [](const std::string& impl) {
    return fits_distribution(impl, {.min_p = 0.3F}, softmax_from(15, 20, 1));
  });
  // The first n of 20 tokens hold (1 - e^(-n/4)) / (1 - e^-5): n = 4 holds 0.636, n = 5 0.718.
  add_check("distribution top_p 0.7", [](const std::string& impl) {
    return fits_distribution(impl, {.top_p = 0.7F}, softmax_from(15, 20, 1));
  });
  add_check("alone or in a batch", same_alone);
  add_check("edges", edges);
  struct Perf {
    const char* name;
    Settings settings;
    float spread;
    bool history = false;
  };
  for (const int64_t B : {1, 256}) {
    for (const auto& [name, settings, spread, history] :
         {Perf{"greedy", {.temperature = 0}, 3}, Perf{"temperature", {}, 3},
          Perf{"top_k 50", {.top_k = 50}, 3}, Perf{"top_p 0.95", {.top_p = 0.95F}, 3},
          Perf{"top_p 0.95 flat", {.top_p = 0.95F}, 0.5F},
          Perf{"k 20 p 0.95 min_p 0.05", {.top_k = 20, .top_p = 0.95F, .min_p = 0.05F}, 3},
          Perf{"k 20 p 0.8 repetition", {.top_k = 20, .top_p = 0.8F, .repetition = 1.05F}, 3, true}}) {
      constexpr int64_t kVocab = 153'376;
      add<Sampling>(ops::sampling_table(),
                    {.params = str("B=", B, " V=", kVocab, " ", name),
                     .make =
                         [=, settings = settings, spread = spread, history = history](Inputs& in) {
                           Sampling a = make(in, in.normal({B, kVocab}, spread), {settings});
                           a.logprobs = {};
                           if (history) add_history(in, a);
                           return a;
                         },
                     .outputs = {},
                     .perf = true,
                     .bytes = static_cast<double>(B * kVocab * (history ? 9 : 4))});
    }
  }
});

}  // namespace
}  // namespace moge::test
