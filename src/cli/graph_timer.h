// The time of an op on a GPU.
#pragma once
#include <functional>

#include "core/exec_context.h"

namespace moge::cli {

/// Median seconds of one of several calls inside a recorded graph, over which launches do not show. `call`
/// gets the number of the call; it runs with planning first.
double graph_seconds(Backend& backend, const std::function<void(ExecContext&, size_t)>& call);

}  // namespace moge::cli
