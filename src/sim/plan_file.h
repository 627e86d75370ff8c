// Plans as JSON: what `moge sim --json` answers and `--plan FILE` reads.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "spec/parallel_plan.h"

namespace moge::sim {

nlohmann::ordered_json plan_json(const spec::ParallelPlan& plan);
/// A JSON or TOML file (by its extension) with the members of spec::ParallelPlan; absent ones are 1. The
/// answer of `moge sim --json`, which has a plan in it, will do too. Throws FileError.
spec::ParallelPlan load_plan(const std::filesystem::path& file);

}  // namespace moge::sim
