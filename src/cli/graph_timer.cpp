#include "cli/graph_timer.h"

#include <algorithm>
#include <vector>

namespace moge::cli {

double graph_seconds(Backend& backend, const std::function<void(ExecContext&, size_t)>& call) {
  constexpr size_t kCalls = 8;
  constexpr int kRepeats = 7;
  Workspace planner;
  ExecContext ctx{.device = {DeviceKind::kCuda, 0}, .backend = &backend, .workspace = &planner};
  ctx.planning = true;
  call(ctx, 0);
  ctx.planning = false;
  Workspace workspace(planner.planned_bytes(), &backend);
  ctx.workspace = &workspace;
  call(ctx, 0);
  backend.begin_capture();
  for (size_t i = 0; i < kCalls; ++i) call(ctx, i);
  const std::unique_ptr<Graph> graph = backend.end_capture();
  graph->launch();
  std::vector<double> seconds;
  for (int r = 0; r < kRepeats; ++r) {
    const auto begin = backend.make_event(), end = backend.make_event();
    begin->record();
    graph->launch();
    end->record();
    seconds.push_back(end->seconds_since(*begin) / kCalls);
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

}  // namespace moge::cli
