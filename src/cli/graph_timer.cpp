#include "cli/graph_timer.h"

#include <utility>
#include <vector>

#include "cli/quantile.h"

namespace moge::cli {

int64_t planned_bytes(Backend& backend, const std::function<void(ExecContext&, size_t)>& call) {
  Workspace planner;
  ExecContext planning{.device = {DeviceKind::kCuda, 0}, .backend = &backend, .workspace = &planner};
  planning.planning = true;
  call(planning, 0);
  return planner.planned_bytes();
}

double launch_seconds(Backend& backend, Graph& graph) {
  const auto begin = backend.make_event(), end = backend.make_event();
  begin->record();
  graph.launch();
  end->record();
  return end->seconds_since(*begin);
}

double graph_seconds(Backend& backend, const std::function<void(ExecContext&, size_t)>& call) {
  constexpr size_t kCalls = 8;
  constexpr int kRepeats = 7;
  // What takes long is timed at the clocks that the card holds in a long run, at the limit of its power:
  // there the tile that moves fewer bytes wins.
  constexpr double kLong = 100e-6, kHotSeconds = 60e-3;
  Workspace workspace(planned_bytes(backend, call), &backend);
  ExecContext ctx{.device = {DeviceKind::kCuda, 0}, .backend = &backend, .workspace = &workspace};
  call(ctx, 0);
  backend.begin_capture();
  for (size_t i = 0; i < kCalls; ++i) call(ctx, i);
  const std::unique_ptr<Graph> graph = backend.end_capture();
  const double first = launch_seconds(backend, *graph);
  if (first > kLong * kCalls)
    for (double ran = first; ran < kHotSeconds;) ran += launch_seconds(backend, *graph);
  std::vector<double> seconds;
  for (int r = 0; r < kRepeats; ++r) seconds.push_back(launch_seconds(backend, *graph) / kCalls);
  return median(std::move(seconds));
}

}  // namespace moge::cli
