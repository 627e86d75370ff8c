#include "sim/plan_file.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/toml.h"

namespace moge::sim {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{16} << 20;
constexpr int64_t kMaxDegree = int64_t{1} << 20;

using Degree = int64_t spec::ParallelPlan::*;
constexpr std::array<std::pair<const char*, Degree>, 9> kDegrees{{
    {"pipeline", &spec::ParallelPlan::pipeline},
    {"attention_dp", &spec::ParallelPlan::attention_dp},
    {"attention_tp", &spec::ParallelPlan::attention_tp},
    {"expert_ep", &spec::ParallelPlan::expert_ep},
    {"expert_tp", &spec::ParallelPlan::expert_tp},
    {"shared_tp", &spec::ParallelPlan::shared_tp},
    {"pipeline_chunks", &spec::ParallelPlan::pipeline_chunks},
    {"context_parallel", &spec::ParallelPlan::context_parallel},
    {"replicas", &spec::ParallelPlan::replicas},
}};

}  // namespace

nlohmann::ordered_json plan_json(const spec::ParallelPlan& plan) {
  nlohmann::ordered_json json;
  for (const auto& [name, degree] : kDegrees) json[name] = plan.*degree;
  json["reduce_scatter"] = plan.scatters();
  json["text"] = plan.str();
  return json;
}

spec::ParallelPlan load_plan(const std::filesystem::path& file) {
  const std::string text = read_text_file(file, kMaxFileBytes);
  const nlohmann::json root =
      file.extension() == ".toml" ? parse_toml(text, file.string()) : parse_json(text, file.string());
  const bool answer = root.is_object() && root.contains("plan");
  JsonObject table(answer ? root["plan"] : root, file.string() + (answer ? ": plan" : ""));
  spec::ParallelPlan plan;
  for (const auto& [name, degree] : kDegrees) plan.*degree = table.integer(name, 1, kMaxDegree).value_or(1);
  plan.reduce_scatter = table.boolean("reduce_scatter").value_or(false);
  table.has("text");
  table.refuse_unread();
  return plan;
}

}  // namespace moge::sim
