#include "cli/bench_runner.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/model_path.h"
#include "cli/quantile.h"
#include "core/log.h"
#include "engine/op_profile.h"
#include "model/memory_fit.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

/// A profile reads this many passes, so far apart and after so long a run, in seconds: at the limit of its
/// power a card's clocks fall and rise within a second, and after a pause they are the highest.
constexpr int kProfiles = 8;
constexpr double kProfileApart = 0.25, kProfileWarmUp = 1;

/// Each call's median over profiles of the same calls.
std::vector<double> medians(const std::vector<std::vector<double>>& profiles) {
  std::vector<double> of_calls;
  for (size_t call = 0; call < profiles[0].size(); ++call) {
    std::vector<double> seconds;
    for (const std::vector<double>& one : profiles) seconds.push_back(one[call]);
    of_calls.push_back(median(seconds));
  }
  return of_calls;
}

}  // namespace

BenchRunner::BenchRunner(const DeviceBenchOptions& o, const engine::RunnerConfig& limits)
    : options_(o), pool_(static_cast<int>(o.model.threads)), backend_(cuda_backend()) {
  check_gpu_dtypes(o.model);
  ExecContext ctx{.device = {DeviceKind::kCuda, 0}, .pool = &pool_, .backend = &backend_};
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
  roof_ = measure_roof(backend_, o.model.dtype);  // before the model takes the memory
  const auto start = std::chrono::steady_clock::now();
  model::ServingModel model = load_on_device(ctx, o.model, o.layers);
  runner_ = std::make_unique<engine::Runner>(ctx, std::move(model), limits, plan);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  log_info(backend_.info().name, ": ready in ", seconds.count(), " s");
}

ordered_json BenchRunner::header(const char* benchmark, int64_t batch) const {
  return {{"benchmark", benchmark},
          {"device", backend_.info().name},
          {"model", options_.model.model},
          {"layers", runner_->config().num_hidden_layers},
          {"weights", name_of(options_.model.dtype)},
          {"kv_dtype", name_of(options_.model.kv_dtype)},
          {"batch", batch},
          {"memory_bytes", runner_->memory_plan().total()},
          {"copy_bandwidth", roof_.copy},
          {"product_ceiling", roof_.product}};
}

Work BenchRunner::decode_work(int64_t batch, int64_t positions) const {
  const int64_t context = (positions + batch / 2) / batch;
  return {
      roof_, spec::decode_step_bytes(runner_->config(), batch, context, format()),
      static_cast<double>(batch) * spec::flops_per_token(runner_->config(), context, spec::Phase::kDecode)};
}

Work BenchRunner::prompt_work(int64_t prompts, int64_t tokens) const {
  return {roof_, spec::prompt_bytes(runner_->config(), prompts, tokens, format()),
          spec::prompt_flops(runner_->config(), prompts, tokens)};
}

spec::ServingFormat BenchRunner::format() const {
  return {.weights = options_.model.dtype, .kv = options_.model.kv_dtype};
}

std::vector<int32_t> BenchRunner::ids(int64_t count, uint64_t stream) const {
  return random_ids(runner_->config(), count, static_cast<uint64_t>(options_.model.seed), stream);
}

void BenchRunner::profile(ordered_json& out, bool is_graph, double pass_ms, int64_t most,
                          const std::function<double(int64_t)>& passes) {
  ExecContext& ctx = runner_->context();
  std::unique_ptr<engine::OpProfile> profile;
  const auto observe = [&] {
    profile = std::make_unique<engine::OpProfile>(backend_);
    ctx.observer = profile.get();
  };
  if (is_graph) {
    observe();
    runner_->set_graphs(true);
  }
  const auto run_for = [&](double seconds) {
    const double count = std::clamp(seconds * 1e3 / pass_ms, 1.0, static_cast<double>(most));
    for (double left = seconds * 1e3 / pass_ms; left > 0; left -= count) passes(static_cast<int64_t>(count));
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
  out["event_ms"] = profile->event_seconds() * 1e3;
  // Before the first op and after the last. Decode passes, which follow each other, tell no such time.
  if (const double ms = median(host_ms); ms > 0) out["host_ms"] = ms;
  for (const engine::OpProfile::Line& line : profile->lines(medians(profiles))) {
    ordered_json calls = ordered_json::array();
    for (const double seconds : line.call_seconds) calls.push_back(seconds * 1e3);
    out["ops"].push_back(
        {{"op", line.op}, {"calls", calls.size()}, {"ms", line.seconds * 1e3}, {"call_ms", calls}});
  }
  ctx.observer = nullptr;
  if (is_graph) runner_->set_graphs(true);
}

std::string ops_text(const ordered_json& ops) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(3);
  for (const ordered_json& op : ops)
    text << "  " << std::left << std::setw(18) << op["op"].get<std::string>() << std::right << std::setw(6)
         << op["calls"].get<int64_t>() << " calls" << std::setw(10) << op["ms"].get<double>() << " ms\n";
  return text.str();
}

}  // namespace moge::cli
