// The workspace and the time of an op on a GPU.
#pragma once
#include <functional>

#include "core/exec_context.h"

namespace moge::cli {

/// Workspace that `call` asks for, which gets a context that plans, and 0.
int64_t planned_bytes(Backend& backend, const std::function<void(ExecContext&, size_t)>& call);

/// Seconds of one launch, between events; returns when it has ended.
double launch_seconds(Backend& backend, Graph& graph);

/// Median seconds of one of several calls inside a recorded graph, over which launches do not show. `call`
/// gets the number of the call; it runs with planning first.
double graph_seconds(Backend& backend, const std::function<void(ExecContext&, size_t)>& call);

}  // namespace moge::cli
