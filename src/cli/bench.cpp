// moge bench: what this machine can do at best, and how near to it a model comes.
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/bench_cpu.h"
#include "cli/bench_device.h"
#include "cli/command.h"
#include "cli/json_text.h"
#include "ops/machine.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

Option json_option(bool* json) {
  return {.name = "json", .target = json, .help = "Print one JSON object"};
}
Option layers_option(int64_t* layers) {
  return {.name = "layers",
          .target = layers,
          .value = "N",
          .help = "On a GPU the first N layers only, 0 for all",
          .min = 0};
}

/// As many sequences as attention has fast kernels for; more take its plain one.
constexpr int64_t kMostSequences = 2048;
/// Of steps and requests, each of which costs the host memory.
constexpr int64_t kMostSteps = 1 << 20;
Option batch_option(int64_t* batch, std::string help) {
  return {.name = "batch",
          .target = batch,
          .value = "N",
          .help = std::move(help),
          .min = 1,
          .max = kMostSequences};
}

struct BenchMachineOptions {
  int64_t threads = 0;
  bool json = false;

  std::vector<Option> options() {
    return {{.name = "threads",
             .target = &threads,
             .value = "N",
             .help = "0: all CPUs that the process may use",
             .min = 0,
             .max = 4096},
            json_option(&json)};
  }
};

ordered_json to_json(const ops::MachineCeilings& m) {
  ordered_json out = {{"compute", ordered_json::array()}, {"memory", ordered_json::array()}};
  for (const ops::ComputeCeiling& c : m.compute)
    out["compute"].push_back({{"isa", c.isa},
                              {"num_threads", c.num_threads},
                              {"f32_flops", c.f32_flops},
                              {"bf16_flops", c.bf16_flops},
                              {"i8_ops", c.i8_ops}});
  for (const ops::MemoryCeiling& c : m.memory)
    out["memory"].push_back({{"num_threads", c.num_threads},
                             {"dram_read_bytes", c.dram_read_bytes},
                             {"dram_copy_bytes", c.dram_copy_bytes},
                             {"dram_triad_bytes", c.dram_triad_bytes},
                             {"l3_read_bytes", c.l3_read_bytes}});
  return out;
}

void bench_machine(const BenchMachineOptions& o) {
  ThreadPool pool(static_cast<int>(o.threads));
  ExecContext ctx{.pool = &pool};
  const ops::MachineCeilings m = ops::measure_machine(ctx);
  if (o.json) {
    print_json(to_json(m), 2);
    return;
  }
  std::cout << std::fixed << std::setprecision(1) << "GFLOP/s   threads      f32     bf16       i8\n";
  for (const ops::ComputeCeiling& c : m.compute)
    std::cout << std::left << std::setw(10) << c.isa << std::right << std::setw(7) << c.num_threads
              << std::setw(9) << c.f32_flops * 1e-9 << std::setw(9) << c.bf16_flops * 1e-9 << std::setw(9)
              << c.i8_ops * 1e-9 << '\n';
  std::cout << "GB/s      threads     read     copy    triad  L3 read\n";
  for (const ops::MemoryCeiling& c : m.memory)
    std::cout << "memory    " << std::setw(7) << c.num_threads << std::setw(9) << c.dram_read_bytes * 1e-9
              << std::setw(9) << c.dram_copy_bytes * 1e-9 << std::setw(9) << c.dram_triad_bytes * 1e-9
              << std::setw(9) << c.l3_read_bytes * 1e-9 << '\n';
}

struct BenchDecodeOptions {
  ModelOptions model;
  std::optional<int64_t> prompt_tokens;
  int64_t max_tokens = 64;
  int64_t layers = 0;
  int64_t batch = 1;
  std::optional<int64_t> rounds;
  bool profile = false;
  bool eager = false;
  bool json = false;

  std::vector<Option> options() {
    return joined(
        model.options(),
        {{.name = "prompt-tokens",
          .target = &prompt_tokens,
          .value = "N",
          .help = "CPU: random ids before (default: 16)",
          .min = 1},
         {.name = "max-tokens",
          .letter = 'n',
          .target = &max_tokens,
          .value = "N",
          .help = "Tokens to decode",
          .min = 2,
          .max = kMostSteps},
         layers_option(&layers),
         batch_option(&batch, "GPU: sequences"),
         {.name = "rounds",
          .target = &rounds,
          .value = "N",
          .help = "CPU: generations to take the median of (default: 7)",
          .min = 1},
         {.name = "profile", .target = &profile, .help = "GPU: time by op, medians of eight later steps"},
         {.name = "eager", .target = &eager, .help = "GPU: launch op by op instead of as a graph"},
         json_option(&json)});
  }
};

/// What only the GPU's benchmarks have, refused by name.
void check_cpu_options(int64_t batch, int64_t layers, bool profile, bool eager = false) {
  check<UsageError>(batch == 1 && layers == 0 && !profile && !eager,
                    "--batch, --layers, --profile and --eager: benchmarks of the GPU have them");
}

/// For benchmarks that only a GPU has.
void check_gpu_options(const ModelOptions& o) {
  check<UsageError>(o.device != "cpu", "--device cpu: expected cuda or auto, this benchmark needs a GPU");
  check_gpu_dtypes(o);
}

void bench_decode(const BenchDecodeOptions& o) {
  if (use_cuda(o.model.device)) {
    check<UsageError>(
        !o.prompt_tokens && !o.rounds,
        "--prompt-tokens and --rounds: the benchmark of the CPU has them, a GPU's sequences hold "
        "--context tokens");
    return bench_device_decode({.model = o.model, .layers = o.layers, .json = o.json},
                               {.batch = o.batch,
                                .context = o.model.context.value_or(2048),
                                .steps = o.max_tokens,
                                .profile = o.profile,
                                .eager = o.eager});
  }
  check_cpu_options(o.batch, o.layers, o.profile, o.eager);
  bench_cpu_decode({.model = o.model,
                    .prompt_tokens = o.prompt_tokens.value_or(16),
                    .max_tokens = o.max_tokens,
                    .rounds = o.rounds.value_or(7),
                    .json = o.json});
}

struct BenchPrefillOptions {
  ModelOptions model;
  int64_t layers = 0;
  int64_t batch = 1;
  int64_t repeats = 8;
  bool profile = false;
  bool json = false;

  std::vector<Option> options() {
    return joined(
        model.options(),
        {layers_option(&layers),
         batch_option(&batch, "GPU: prompts of --context tokens each"),
         {.name = "repeats",
          .target = &repeats,
          .value = "N",
          .help = "Passes to take the median of",
          .min = 1,
          .max = kMostSteps},
         {.name = "profile", .target = &profile, .help = "GPU: time by op, medians of eight later passes"},
         json_option(&json)});
  }
};

void bench_prefill(const BenchPrefillOptions& o) {
  const int64_t context = o.model.context.value_or(2048);
  if (use_cuda(o.model.device))
    return bench_device_prefill(
        {.model = o.model, .layers = o.layers, .json = o.json},
        {.batch = o.batch, .context = context, .passes = o.repeats, .profile = o.profile});
  check_cpu_options(o.batch, o.layers, o.profile);
  bench_cpu_prefill({.model = o.model, .prompt_tokens = context, .rounds = o.repeats, .json = o.json});
}

struct BenchServeOptions {
  ModelOptions model;
  int64_t layers = 0;
  int64_t batch = 16;
  int64_t requests = 64;
  int64_t max_tokens = 128;
  bool json = false;

  std::vector<Option> options() {
    return joined(model.options(), {layers_option(&layers),
                                    batch_option(&batch, "Requests at a time"),
                                    {.name = "requests",
                                     .target = &requests,
                                     .value = "N",
                                     .help = "Requests in all",
                                     .min = 1,
                                     .max = kMostSteps},
                                    {.name = "max-tokens",
                                     .letter = 'n',
                                     .target = &max_tokens,
                                     .value = "N",
                                     .help = "Tokens of an answer, the mean",
                                     .min = 4,
                                     .max = kMostSteps},
                                    json_option(&json)});
  }
};

void bench_serve_like(const BenchServeOptions& o) {
  check_gpu_options(o.model);
  bench_device_serve({.model = o.model, .layers = o.layers, .json = o.json},
                     {.clients = o.batch,
                      .prompt_tokens = o.model.context.value_or(1024),
                      .answer_tokens = o.max_tokens,
                      .requests = o.requests});
}

struct BenchLlamaOptions {
  ModelOptions model;
  int64_t layers = 0;
  int64_t repeats = 5;
  bool json = false;

  std::vector<Option> options() {
    return joined(model.options(), {layers_option(&layers),
                                    {.name = "repeats",
                                     .target = &repeats,
                                     .value = "N",
                                     .help = "Passes to take the median of",
                                     .min = 1},
                                    json_option(&json)});
  }
};

void bench_llama(const BenchLlamaOptions& o) {
  check<UsageError>(!o.model.context, "--context: this benchmark has lengths of its own, 512 and 128 tokens");
  if (use_cuda(o.model.device))
    return bench_device_llama({.model = o.model, .layers = o.layers, .json = o.json}, o.repeats);
  check_cpu_options(1, o.layers, false);
  bench_cpu_llama({.model = o.model, .rounds = o.repeats, .json = o.json});
}

struct BenchOpsOptions {
  ModelOptions model;
  bool json = false;

  std::vector<Option> options() { return joined(model.options(), {json_option(&json)}); }
};

void bench_ops(const BenchOpsOptions& o) {
  check_gpu_options(o.model);
  bench_device_ops({.model = o.model, .json = o.json}, o.model.context.value_or(0));
}

}  // namespace

std::vector<Command> bench_commands() {
  return {
      make_command<BenchMachineOptions>(
          {"bench machine", "measures this machine's ceilings",
           "Arithmetic on registers, and reading, copying and combining more than the caches hold; the\n"
           "best of repeated runs (src/ops/machine.h). Percentages of other benchmarks are of these.\n\n"
           "  moge bench machine\n"},
          bench_machine),
      make_command<BenchDecodeOptions>(
          {"bench decode", "tokens per second of one sequence, and percent of the memory's roof",
           "Decoding reads every active weight and the cached keys and values once a token; what it reads\n"
           "a second is compared with what this machine can read just before and after. On a GPU\n"
           "--batch sequences (random keys and values) decode together; --context is the mean length of\n"
           "the timed steps.\n\n"
           "  moge bench decode dense-500m --random-weights\n"
           "  moge bench decode dense-500m --random-weights --device cpu --dtype i8\n"
           "  moge bench decode pangu-pro-moe-72b-a16b --random-weights --dtype i8 --kv-dtype i8 --batch "
           "300\n"},
          bench_decode),
      make_command<BenchPrefillOptions>(
          {"bench prefill", "time to the first token of prompts, and FLOP/s",
           "From the host's ids of --context random tokens to the drawn token on the host. On a GPU one pass "
           "over\n"
           "--batch such prompts; on the CPU one prompt, in passes, beside what its arithmetic reaches on "
           "registers\n"
           "(moge bench machine), which is measured before and after each.\n\n"
           "  moge bench prefill dense-500m --random-weights --context 512\n"
           "  moge bench prefill pangu-pro-moe-72b-a16b --random-weights --dtype i8 --batch 2 --context "
           "2048\n"},
          bench_prefill),
      make_command<BenchServeOptions>(
          {"bench serve-like", "requests that come and go on a GPU: throughput, TTFT, TPOT",
           "--batch clients, each with its next request as soon as the last is answered; prompts of "
           "--context\n"
           "random tokens, answers of half to one and a half times --max-tokens; a prefill pass stops the "
           "others'\n"
           "decoding. No server, tokenizer or scheduler is measured.\n\n"
           "  moge bench serve-like pangu-pro-moe-72b-a16b --random-weights --dtype i8 --kv-dtype i8 --batch "
           "64\n"},
          bench_serve_like),
      make_command<BenchLlamaOptions>(
          {"bench llama", "pp512 and tg128, the two numbers that llama-bench prints",
           "One sequence: tokens per second of a prompt of 512, and of 128 generated from nothing.\n\n"
           "  moge bench llama dense-500m --random-weights --device cpu\n"
           "  moge bench llama pangu-pro-moe-72b-a16b --random-weights --dtype i8\n"},
          bench_llama),
      make_command<BenchOpsOptions>(
          {"bench ops", "the operators of a model's layer alone, on a GPU",
           "Every operator of a step, over 1 to 8192 tokens: products (of experts with the model's own "
           "routing), what\n"
           "lies between them, attention over contexts of 128 to 8192. The JSON is a table of measured "
           "operators for\n"
           "moge sim (docs/sim.md).\n\n"
           "  moge bench ops pangu-pro-moe-72b-a16b --dtype i8 --kv-dtype i8 --json > h200.json\n"},
          bench_ops)};
}

}  // namespace moge::cli
