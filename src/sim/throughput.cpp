#include "sim/throughput.h"

#include <algorithm>
#include <cmath>

#include "core/str.h"

namespace moge::sim {
namespace {

constexpr double kMaxBatch = 1 << 20;

StepLoad load_of(const ThroughputSetup& s, double batch) {
  if (s.stage == ThroughputSetup::Stage::kPrefill) return prefill_load(batch, s.length);
  return decode_load(batch, s.length, static_cast<double>(s.draft_tokens));
}

/// Calls fn(batch) for 1, 2, 3, 4, 6, 8, 12, ... until it returns false.
template <class Fn>
void for_each_batch(const Fn& fn) {
  for (double power = 1; power <= kMaxBatch; power *= 2)
    for (const double batch : {power, 1.5 * power})
      if (batch == std::floor(batch) && !fn(batch)) return;
}

/// Appends the point of a batch; false behind the end of the line.
bool add_point(Series& line, const ThroughputSetup& s, double batch, double seconds,
               const std::string& plan) {
  const bool decode = s.stage == ThroughputSetup::Stage::kDecode;
  const double gained = decode ? tokens_per_step(s.draft_tokens, s.acceptance) : s.length;
  const double ms = decode ? seconds / gained * 1e3 : seconds * 1e3;
  if (ms > s.max_latency_ms && !line.x.empty()) return false;
  line.x.push_back(ms);
  line.y.push_back(batch * gained / seconds / s.cards);
  line.notes.push_back(str("batch ", static_cast<int64_t>(batch), plan.empty() ? "" : ": ", plan));
  return true;
}

/// The plan without what all serving plans of one stage share, for a legend.
std::string short_name(const spec::ParallelPlan& plan) {
  const std::string text = plan.str(), one_stage = "PP1, ";
  return text.starts_with(one_stage) ? text.substr(one_stage.size()) : text;
}

}  // namespace

Series throughput_curve(const std::string& name, const PlanSearch& search, const ThroughputSetup& s) {
  Series line{name, Mark::kLineAndPoints};
  for_each_batch([&](double batch) {
    const PlanChoice choice = search.fastest(load_of(s, batch), batch, s.length);
    return choice.memory.fits() && add_point(line, s, batch, choice.seconds, choice.plan.str());
  });
  return line;
}

std::vector<Series> plan_curves(const PlanSearch& search, const ThroughputSetup& s, size_t most) {
  std::vector<spec::ParallelPlan> plans;
  for_each_batch([&](double batch) {
    const PlanChoice choice = search.fastest(load_of(s, batch), batch, s.length);
    if (!choice.memory.fits() || choice.seconds * 1e3 > s.max_latency_ms) return false;
    if (std::ranges::find(plans, choice.plan) == plans.end()) plans.push_back(choice.plan);
    return plans.size() < most;
  });
  std::vector<Series> lines;
  for (const spec::ParallelPlan& plan : plans) {
    const StepModel& model = search.model(plan);
    Series line{short_name(plan), Mark::kLine};
    for_each_batch([&](double batch) {
      const StepLoad load = load_of(s, batch);
      return model.memory(batch, s.length, load.tokens()).fits() &&
             add_point(line, s, batch, model.seconds(load), "");
    });
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace moge::sim
