// moge sim train: one training step of a model on a plan, and two plans compared part by part.
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/config_path.h"
#include "cli/json_text.h"
#include "cli/model_path.h"
#include "cli/report_options.h"
#include "cli/sim_setup.h"
#include "core/error.h"
#include "core/log.h"
#include "sim/plan_file.h"
#include "sim/training.h"
#include "sim/training_report.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kMilli = 1e3;

struct SimTrainOptions {
  std::string model;
  SimMachineOptions machine;
  int64_t cards = 0;
  std::string plan;
  std::optional<std::string> baseline;
  int64_t sequence = 4096;
  int64_t micro_batch = 1;
  int64_t global_batch = 4'194'304;
  std::string recompute = "none";
  std::string attention = "fused";
  double overlap = 0;
  double baseline_overlap = 0;
  double skew = 0;
  ReportOptions files;

  std::vector<Option> options() {
    return joined(
        joined(
            joined({sim_model_option(&model)}, machine.options()),
            {{.name = "plan",
              .target = &plan,
              .value = "FILE",
              .help = "How the model is laid over devices: a file like those of configs/plans, or its name",
              .required = true},
             {.name = "baseline",
              .target = &baseline,
              .value = "FILE",
              .help = "Another plan to compare with"},
             {.name = "cards",
              .target = &cards,
              .value = "N",
              .help = "0: as many as the plan says; more: replicas of it",
              .min = 0,
              .max = 1 << 20},
             {.name = "sequence",
              .target = &sequence,
              .value = "S",
              .help = "Tokens of a sequence",
              .min = 1,
              .max = 1 << 30},
             {.name = "micro-batch",
              .target = &micro_batch,
              .value = "N",
              .help = "Sequences of a microbatch",
              .min = 1,
              .max = 1 << 20},
             {.name = "global-batch",
              .target = &global_batch,
              .value = "TOKENS",
              .help = "Tokens of a step",
              .min = 1,
              .max = 1e12},
             {.name = "recompute",
              .target = &recompute,
              .value = "WHAT",
              .help = "What the backward pass computes again",
              .choices = {"none", "attention", "full"}},
             {.name = "attention",
              .target = &attention,
              .value = "KIND",
              .help = "fused: as FlashAttention; unfused: its scores go to memory",
              .choices = {"fused", "unfused"}},
             {.name = "overlap",
              .target = &overlap,
              .value = "SHARE",
              .help = "Of the layers' communication hidden behind computation",
              .min = 0,
              .max = 1},
             {.name = "baseline-overlap",
              .target = &baseline_overlap,
              .value = "SHARE",
              .help = "The same of the baseline",
              .min = 0,
              .max = 1},
             {.name = "skew",
              .target = &skew,
              .value = "S",
              .help = "Of the router, as of sim decode",
              .min = 0,
              .max = 10}}),
        files.options());
  }
};

/// The parts of a step, in the order of the printout.
std::vector<std::pair<const char*, double>> parts(const sim::TrainingEstimate& e) {
  return {{"matmul", e.matmul_s},      {"attention", e.attention_s}, {"vector", e.vector_s},
          {"lm_head", e.head_s},       {"recompute", e.recompute_s}, {"straggler", e.straggler_s},
          {"tensor_parallel", e.tp_s}, {"expert_parallel", e.ep_s},  {"context_parallel", e.cp_s},
          {"pipeline_send", e.pp_s},   {"bubble", e.bubble_s},       {"gradients", e.dp_s},
          {"optimizer", e.optimizer_s}};
}

ordered_json to_json(const spec::ParallelPlan& plan, const sim::TrainingEstimate& e) {
  ordered_json breakdown = ordered_json::array();
  for (const auto& [name, seconds] : parts(e)) breakdown.push_back({{"op", name}, {"ms", seconds * kMilli}});
  return {{"plan", sim::plan_json(plan)},
          {"devices", plan.devices()},
          {"latency_ms", e.step_s * kMilli},
          {"mfu", e.mfu},
          {"tokens_per_s", e.tokens_per_s},
          {"tokens_per_s_per_device", e.tokens_per_s / static_cast<double>(plan.devices())},
          {"micro_batches", e.micro_batches},
          {"bubble", e.bubble},
          {"padded_layers", e.padded_layers},
          {"memory_gib_per_device", e.memory_bytes() / kGiB},
          {"memory",
           {{"weights_and_gradients_gib", e.weights_bytes / kGiB},
            {"optimizer_gib", e.optimizer_bytes / kGiB},
            {"activations_gib", e.activation_bytes / kGiB},
            {"limit_gib", e.memory_limit / kGiB}}},
          {"fits", e.fits()},
          {"breakdown", breakdown}};
}

void print(const std::vector<ordered_json>& plans) {
  const auto row = [&](const std::string& label, int digits, const auto& value) {
    std::cout << std::left << std::setw(28) << label << std::right << std::fixed << std::setprecision(digits);
    for (const ordered_json& p : plans) std::cout << std::setw(14) << value(p);
    std::cout << '\n';
  };
  for (const ordered_json& p : plans) std::cout << p["plan"]["text"].get<std::string>() << '\n';
  std::cout << '\n';
  row("devices", 0, [](const ordered_json& p) { return p["devices"].get<double>(); });
  row("step, ms", 1, [](const ordered_json& p) { return p["latency_ms"].get<double>(); });
  row("MFU, %", 2, [](const ordered_json& p) { return 100 * p["mfu"].get<double>(); });
  row("tokens/s a device", 1,
      [](const ordered_json& p) { return p["tokens_per_s_per_device"].get<double>(); });
  row("microbatches", 0, [](const ordered_json& p) { return p["micro_batches"].get<double>(); });
  row("no-op layers", 0, [](const ordered_json& p) { return p["padded_layers"].get<double>(); });
  row("memory, GiB", 1, [](const ordered_json& p) { return p["memory_gib_per_device"].get<double>(); });
  std::cout << "\nshare of the step, %\n";
  for (size_t i = 0; i < plans[0]["breakdown"].size(); ++i)
    row("  " + plans[0]["breakdown"][i]["op"].get<std::string>(), 2, [&](const ordered_json& p) {
      return 100 * p["breakdown"][i]["ms"].get<double>() / p["latency_ms"].get<double>();
    });
}

void sim_train(const SimTrainOptions& o) {
  const spec::ModelConfig model = spec::load_model_config(find_model(o.model));
  const sim::Device device = load_device(o.machine.hardware, o.machine.calibration);
  const auto run = [&](const std::string& file, double overlap) {
    spec::ParallelPlan plan = sim::load_plan(find_config_file("plans", file));
    if (o.cards > 0) {
      const int64_t devices = o.cards * device.hardware.devices_per_card;
      plan.replicas = 1;
      check<UsageError>(devices % plan.devices() == 0, file, ": ", devices,
                        " devices are not a multiple of the ", plan.devices(), " of ", plan.str());
      plan.replicas = devices / plan.devices();
    }
    const sim::TrainingLoad load{.sequence = o.sequence,
                                 .micro_batch = o.micro_batch,
                                 .global_batch_tokens = o.global_batch,
                                 .recompute = o.recompute == "full"        ? sim::Recompute::kFull
                                              : o.recompute == "attention" ? sim::Recompute::kAttention
                                                                           : sim::Recompute::kNone,
                                 .fused_attention = o.attention == "fused",
                                 .overlap = overlap,
                                 .skew = o.skew};
    const sim::TrainingEstimate e = sim::estimate_training(model, device, plan, load);
    if (!e.fits())
      log_warning(file, " does not fit: a device needs ", e.memory_bytes() / kGiB,
                  " GiB (weights and gradients ", e.weights_bytes / kGiB, ", optimizer ",
                  e.optimizer_bytes / kGiB, ", activations ", e.activation_bytes / kGiB, "), ",
                  (e.memory_bytes() - e.memory_limit) / kGiB, " GiB more than its ", e.memory_limit / kGiB);
    return to_json(plan, e);
  };
  std::vector<ordered_json> plans{run(o.plan, o.overlap)};
  if (o.baseline) plans.push_back(run(*o.baseline, o.baseline_overlap));
  ordered_json out = {{"model", o.model},
                      {"hardware", o.machine.hardware},
                      {"sequence", o.sequence},
                      {"global_batch_tokens", o.global_batch}};
  out.update(plans[0]);
  if (o.baseline) {
    out["baseline"] = plans[1];
    out["mfu_gain"] = plans[0]["mfu"].get<double>() / plans[1]["mfu"].get<double>() - 1;
  }
  if (o.files.any()) o.files.write(sim::training_report(out), out);
  if (o.files.json) {
    print_json(out, 2);
    return;
  }
  print(plans);
  if (o.baseline)
    std::cout << "\nMFU against the baseline: " << std::showpos << std::setprecision(1)
              << 100 * out["mfu_gain"].get<double>() << std::noshowpos << "%\n";
}

}  // namespace

Command sim_train_command() {
  return make_command<SimTrainOptions>(
      {"sim train", "predicts a training step: MFU, pipeline bubble, exchanges, memory; compares two plans",
       "docs/sim.md has the formulas. The report's plan against its baseline (arXiv 2505.21411, section "
       "3):\n\n"
       "  moge sim train --model pangu-pro-moe-72b-a16b --hardware ascend-800t-a2 --cards 3840 \\\n"
       "    --plan report-training --baseline report-training-baseline\n"},
      sim_train);
}

}  // namespace moge::cli
