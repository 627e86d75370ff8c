// moge inspect: what a model is and costs, from its config; for a checkpoint also whether its tensors fit.
#include <array>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/command.h"
#include "cli/json_text.h"
#include "cli/model_path.h"
#include "core/error.h"
#include "core/memory_text.h"
#include "core/thread_pool.h"
#include "io/hf_checkpoint.h"
#include "model/loader.h"
#include "spec/cost.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

struct InspectOptions {
  std::string model;
  bool json = false;
  bool verify = false;
  int64_t context = 4096;
  DType kv_dtype = DType::kBF16;

  std::vector<Option> options() {
    return {{.name = "MODEL",
             .target = &model,
             .help = "Hugging Face directory, or a config's name (moge --help lists them)"},
            {.name = "json", .target = &json, .help = "Print one JSON object"},
            {.name = "verify",
             .target = &verify,
             .help = "Read the weights: compare checksums, look for NaN and infinity"},
            {.name = "context",
             .target = &context,
             .value = "N",
             .help = "Positions that FLOPs and bytes count for",
             .min = 1,
             .max = 1 << 30},
            {.name = "kv-dtype",
             .target = &kv_dtype,
             .value = "TYPE",
             .help = "Of cached keys and values: bf16, f16, f32, i8 or fp8_e4m3; scales are not counted"}};
  }
};

ordered_json parts(const spec::ParameterCount& n) {
  return {{"embedding", n.embedding},
          {"lm_head", n.lm_head},
          {"attention", n.attention + n.attention_bias},
          {"dense_mlp", n.dense_mlp},
          {"router", n.router},
          {"routed_experts", n.routed_experts},
          {"shared_expert", n.shared_expert},
          {"norms", n.norms}};
}

ordered_json bytes_of(const spec::MemoryPlan& plan) {
  ordered_json out;
  const auto add = [&](const char* purpose, int64_t bytes) {
    if (bytes > 0) out[purpose] = bytes;
  };
  add("weights", plan.weights);
  add("kv_cache", plan.kv_cache);
  add("activations", plan.activations);
  add("logits", plan.logits);
  add("gradients", plan.gradients);
  add("master_weights", plan.master_weights);
  add("optimizer_moments", plan.optimizer_moments);
  out["total"] = plan.total();
  return out;
}

/// Every tensor of the config must be there with its shape, and no other. Throws FileError.
ordered_json checkpoint_report(const std::filesystem::path& dir, const spec::ModelConfig& config,
                               bool verify) {
  io::CheckpointReader reader(dir);
  Arena counting;
  const model::Weights weights = model::allocate_weights(counting, config, DType::kBF16);
  ordered_json report = {{"tensors", reader.names().size()}};
  model::take_tied_head(reader, config);
  int64_t bytes = 0;
  for (const model::HfTensor& t : model::hf_tensors(weights, config))
    bytes += reader.take(t.name, t.file_shape).bytes();
  reader.finish();
  report["bytes"] = bytes;
  if (verify) {
    ThreadPool pool;
    report["verified_checksums"] = reader.verify(pool);
    reader.check_finite(pool);
    report["finite"] = true;
  }
  return report;
}

ordered_json report(const InspectOptions& o) {
  const std::filesystem::path dir = find_model(o.model);
  const spec::ModelConfig c = spec::load_model_config(dir);
  ordered_json out = {
      {"model", o.model},
      {"model_type", c.model_type},
      {"parameters", spec::parameters(c)},
      {"active_parameters", spec::active_parameters(c)},
      {"context", o.context},
      {"flops_per_token", spec::flops_per_token(c, o.context, spec::Phase::kPrefill)},
      {"training_flops_per_token", spec::flops_per_token(c, o.context, spec::Phase::kTraining)},
      {"decode_flops_per_token", spec::flops_per_token(c, o.context, spec::Phase::kDecode)},
      {"kv_dtype", name_of(o.kv_dtype)},
      {"kv_bytes_per_token", spec::kv_bytes_per_token(c, o.kv_dtype)},
      {"decode_read_bytes", spec::decode_read_bytes(c, o.context, DType::kBF16, o.kv_dtype)},
      {"vocab_size", c.vocab_size},
      {"hidden_size", c.hidden_size},
      {"num_hidden_layers", c.num_hidden_layers},
      {"num_attention_heads", c.num_attention_heads},
      {"num_key_value_heads", c.num_key_value_heads},
      {"head_dim", c.head_dim},
      {"max_position_embeddings", c.max_position_embeddings},
      {"num_experts", c.num_experts},
      {"num_expert_groups", c.num_expert_groups},
      {"num_experts_per_tok", c.num_experts_per_tok},
      {"moe_intermediate_size", c.moe_intermediate_size},
      {"shared_expert_intermediate_size", c.shared_expert_intermediate_size},
      {"intermediate_size", c.intermediate_size},
      {"parameters_by_part", parts(spec::parameter_count(c))},
      {"active_parameters_by_part", parts(spec::active_parameter_count(c))},
      {"weight_bytes",
       {{"bf16", spec::weight_bytes(c, DType::kBF16)}, {"f32", spec::weight_bytes(c, DType::kF32)}}},
      {"serving_memory", bytes_of(spec::serving_memory(c, DType::kBF16, o.kv_dtype, o.context, 1, 1))},
      {"training_memory", bytes_of(spec::training_memory(c, {.micro_batch_tokens = o.context}))}};
  check<UsageError>(has_weights(dir) || !o.verify, o.model, " has no weights to verify");
  if (has_weights(dir)) out["checkpoint"] = checkpoint_report(dir, c, o.verify);
  return out;
}

/// "71.99 B": parameters count in billions, FLOPs in giga.
std::string decimal(double value, const char* billion = " B") {
  const std::array<const char*, 5> prefixes{"", " k", " M", billion, " T"};
  size_t i = 0;
  for (; value >= 1000 && i + 1 < prefixes.size(); ++i) value /= 1000;
  std::ostringstream out;
  out << std::fixed << std::setprecision(i == 0 ? 0 : 2) << value << prefixes[i];
  return out.str();
}

void print(const ordered_json& r) {
  const auto line = [](const std::string& label, const std::string& text) {
    std::cout << std::left << std::setw(26) << label << text << '\n';
  };
  const auto number = [&](const char* key) { return r[key].get<double>(); };
  const std::string at_context = str(" (", r["context"], " positions)");
  line("model", str(r["model"].get<std::string>(), ", ", r["model_type"].get<std::string>()));
  line("parameters", decimal(number("parameters")));
  line("active parameters", decimal(number("active_parameters")) + " a token");
  line("layers",
       str(r["num_hidden_layers"], " of width ", r["hidden_size"], "; vocabulary ", r["vocab_size"]));
  line("attention", str(r["num_attention_heads"], " heads of ", r["head_dim"], ", ", r["num_key_value_heads"],
                        " for keys and values"));
  const ordered_json& shared = r["shared_expert_intermediate_size"];
  const std::string always_on = shared == 0 ? "none" : str("width ", shared);
  if (r["num_experts"] == 0)
    line("mlp", str("dense, width ", r["intermediate_size"]));
  else
    line("experts", str(r["num_experts"], " of width ", r["moe_intermediate_size"], " in ",
                        r["num_expert_groups"], r["num_expert_groups"] == 1 ? " group, " : " groups, ",
                        r["num_experts_per_tok"], " a token; always on: ", always_on));
  for (const auto& [part, count] : r["parameters_by_part"].items())
    if (count != 0)
      line("  " + part, str(decimal(count.get<double>()), ", active ",
                            decimal(r["active_parameters_by_part"][part].get<double>())));
  line("FLOPs a token, forward", decimal(number("flops_per_token"), " G") + at_context);
  line("FLOPs a token, training", decimal(number("training_flops_per_token"), " G") + at_context);
  line("weights", str(memory_text(r["weight_bytes"]["bf16"].get<int64_t>()), " in bf16, ",
                      memory_text(r["weight_bytes"]["f32"].get<int64_t>()), " in f32"));
  line("KV cache", str(r["kv_bytes_per_token"], " bytes a token in ", r["kv_dtype"].get<std::string>()));
  line("one decode step reads", memory_text(r["decode_read_bytes"].get<int64_t>()) + at_context);
  const auto memory = [&](const std::string& label, const ordered_json& plan, const std::string& of_what) {
    std::string parts;
    for (const auto& [purpose, bytes] : plan.items())
      if (purpose != "total")
        parts += str(parts.empty() ? "" : ", ", purpose, ' ', memory_text(bytes.get<int64_t>()));
    line(label, str(memory_text(plan["total"].get<int64_t>()), of_what, ": ", parts));
  };
  memory("memory to decode", r["serving_memory"],
         str(", one sequence of ", r["context"], ", weights in bf16"));
  memory(
      "memory to train", r["training_memory"],
      str(" estimated, weights in bf16, ", r["context"], " tokens at a time, without logits and workspace"));
  if (!r.contains("checkpoint")) return;
  const ordered_json& checkpoint = r["checkpoint"];
  line("checkpoint", str(checkpoint["tensors"], " tensors, ", memory_text(checkpoint["bytes"].get<int64_t>()),
                         ": all that the config asks for, and no other"));
  if (checkpoint.contains("finite"))
    line("verified", str("every weight is finite; ", checkpoint["verified_checksums"], " of ",
                         checkpoint["tensors"], " tensors have a checksum, all right"));
}

void inspect(const InspectOptions& o) {
  const ordered_json r = report(o);
  if (o.json)
    print_json(r, 2);
  else
    print(r);
}

}  // namespace

Command inspect_command() {
  return make_command<InspectOptions>(
      {"inspect", "parameters, FLOPs and bytes of a model; checks a checkpoint",
       "Counts from config.json alone. If the directory has weights, their names and shapes must be the\n"
       "config's; --verify reads them too. FLOPs count matmuls, a multiply-add as two, causal attention as\n"
       "half.\n\n"
       "  moge inspect pangu-pro-moe-72b-a16b\n"
       "  moge inspect build/demo/moge/model --verify --json\n"},
      inspect);
}

}  // namespace moge::cli
