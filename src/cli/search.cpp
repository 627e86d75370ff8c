// moge search: model shapes by predicted throughput on several machines at once.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/command.h"
#include "cli/config_path.h"
#include "cli/json_text.h"
#include "cli/model_path.h"
#include "cli/report_options.h"
#include "cli/sim_setup.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "core/log.h"
#include "core/progress.h"
#include "sim/search.h"
#include "sim/search_report.h"

namespace moge::cli {

namespace {

using nlohmann::ordered_json;

constexpr double kMilli = 1e3;
constexpr double kBillion = 1e9;

struct SearchCommandOptions {
  std::string space;
  std::string hardware;
  std::string slo_tpot_ms;
  std::string cards = "4";
  int64_t context = 2048;
  std::string weights = "w8a8";
  std::string kv = "fp16";
  std::string plans = "auto";
  int64_t depth_floor = 48;
  double band = 0.05;
  int64_t top = 10;
  int64_t threads = 0;
  std::filesystem::path out;
  ReportOptions files;

  std::vector<Option> options() {
    return joined(
        {{.name = "space",
          .target = &space,
          .value = "FILE",
          .help = "The grid of shapes: a file like those of configs/search, or its name",
          .required = true},
         {.name = "hardware",
          .target = &hardware,
          .value = "H1,H2",
          .help = "Machines, by their files of configs/hardware",
          .required = true},
         {.name = "slo-tpot-ms",
          .target = &slo_tpot_ms,
          .value = "MS1,MS2",
          .help = "Longest time between a request's tokens on each machine, or one for all",
          .required = true},
         {.name = "cards",
          .target = &cards,
          .value = "N1,N2",
          .help = "Cards of each machine, or one number for all"},
         {.name = "context",
          .target = &context,
          .value = "C",
          .help = "Cached positions of each request",
          .min = 1,
          .max = 1 << 30},
         {.name = "weights", .target = &weights, .value = "FORMAT", .help = "bf16, fp16, w8a8, w4a8 or fp8"},
         {.name = "kv", .target = &kv, .value = "FORMAT", .help = "bf16, fp16, int8, fp8 or int4"},
         {.name = "plan",
          .target = &plans,
          .value = "auto|best",
          .help = "Plans to choose from, as of sim decode",
          .choices = {"auto", "best"}},
         {.name = "depth-floor",
          .target = &depth_floor,
          .value = "L",
          .help = "Least layers of what is recommended: an assumption about quality, of which the score "
                  "knows nothing",
          .min = 1,
          .max = 1 << 20},
         {.name = "band",
          .target = &band,
          .value = "SHARE",
          .help = "The base model is ranked among shapes as deep whose active parameters differ by at "
                  "most this share",
          .min = 0,
          .max = 1},
         {.name = "top", .target = &top, .value = "N", .help = "Shapes to list", .min = 1, .max = 1 << 20},
         sim_threads_option(&threads),
         {.name = "out",
          .target = &out,
          .value = "FILE",
          .help =
              "Every shape's result, a JSON object a line; a search that was interrupted goes on from it"}},
        files.options());
  }
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

/// One positive number for each of `n` machines; one alone counts for all.
std::vector<double> numbers(const std::string& flag, const std::string& text, size_t n) {
  std::vector<double> all;
  for (const std::string& part : split(text)) {
    char* end = nullptr;
    const double x = std::strtod(part.c_str(), &end);
    check<UsageError>(end != part.c_str() && *end == '\0' && x > 0 && x < 1e9, flag, " '", text,
                      "': expected positive numbers with commas between");
    all.push_back(x);
  }
  check<UsageError>(all.size() == 1 || all.size() == n, flag, " '", text, "': expected one number or ", n);
  if (all.size() == 1) all.resize(n, all[0]);
  return all;
}

std::vector<sim::Platform> load_platforms(const SearchCommandOptions& o) {
  const std::vector<std::string> names = split(o.hardware);
  check<UsageError>(!names.empty(), "--hardware: expected at least one name");
  const std::vector<double> slo = numbers("--slo-tpot-ms", o.slo_tpot_ms, names.size());
  const std::vector<double> cards = numbers("--cards", o.cards, names.size());
  std::vector<sim::Platform> platforms;
  for (size_t i = 0; i < names.size(); ++i) {
    check<UsageError>(cards[i] == std::floor(cards[i]) && cards[i] <= 1 << 20, "--cards '", o.cards,
                      "': expected whole numbers");
    platforms.push_back(
        {names[i], load_device(names[i], std::nullopt), static_cast<int64_t>(cards[i]), slo[i] / kMilli});
  }
  return platforms;
}

/// What decides the results: a file of results belongs to one search.
ordered_json header(const SearchCommandOptions& o, const sim::SearchSpace& space,
                    const std::vector<sim::Platform>& platforms) {
  ordered_json machines = ordered_json::array();
  for (const sim::Platform& p : platforms) {
    ordered_json constants;
    for (const sim::ConstantField& field : sim::constant_fields())
      constants[field.name] = (p.device.calibration.*field.member).value;
    machines.push_back({{"hardware", p.name},
                        {"cards", p.cards},
                        {"slo_tpot_ms", p.max_step_s * kMilli},
                        {"constants", constants}});
  }
  return {{"space", space.fingerprint},
          {"context", o.context},
          {"weights", o.weights},
          {"kv", o.kv},
          {"plan", o.plans},
          {"platforms", machines}};
}

ordered_json result_json(const sim::ShapeResult& r) {
  ordered_json platforms = ordered_json::array();
  for (const sim::PlatformScore& p : r.platforms)
    platforms.push_back({{"tokens_per_s_per_card", p.tokens_per_s_per_card},
                         {"tpot_ms", p.step_s * kMilli},
                         {"batch", p.requests}});
  const sim::Shape& s = r.shape;
  return {{"index", r.index},
          {"hidden_size", s.hidden_size},
          {"num_hidden_layers", s.num_hidden_layers},
          {"num_attention_heads", s.num_attention_heads},
          {"num_key_value_heads", s.num_key_value_heads},
          {"num_experts", s.num_experts},
          {"moe_intermediate_size", s.moe_intermediate_size},
          {"parameters", r.parameters},
          {"active_parameters", r.active_parameters},
          {"score", r.score()},
          {"platforms", platforms}};
}

/// The results of an earlier run, in order; lines that a kill cut off are dropped.
std::vector<sim::ShapeResult> read_results(const std::filesystem::path& file, const ordered_json& expected,
                                           const std::vector<sim::Shape>& all, size_t num_platforms) {
  std::vector<sim::ShapeResult> results;
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return results;
  const MappedFile earlier(file);
  std::string_view text(reinterpret_cast<const char*>(earlier.bytes().data()), earlier.bytes().size());
  const std::string head = json_text(expected) + "\n";
  check<UsageError>(text.starts_with(head) || head.starts_with(text), file.string(),
                    " has the results of another search (space, machines, constants or options differ)");
  text.remove_prefix(std::min(head.size(), text.size()));
  for (size_t end = 0; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    const nlohmann::json value = nlohmann::json::parse(text.substr(0, end), nullptr, false);
    if (value.is_discarded()) break;
    JsonObject row(value, str(file.string(), ":", results.size() + 2));
    const auto index = static_cast<size_t>(row.require(row.integer("index", 0), "index"));
    const nlohmann::json* platforms = row.find("platforms");
    check<FileError>(index == results.size() && index < all.size() && platforms && platforms->is_array() &&
                         platforms->size() == num_platforms,
                     row.where(), ": not a result of this search");
    sim::ShapeResult r{.index = static_cast<int64_t>(index), .shape = all[index]};
    r.parameters = row.require(row.number("parameters"), "parameters");
    r.active_parameters = row.require(row.number("active_parameters"), "active_parameters");
    for (const nlohmann::json& p : *platforms) {
      JsonObject score(p, row.where() + ": platforms");
      r.platforms.push_back({score.require(score.number("tokens_per_s_per_card"), "tokens_per_s_per_card"),
                             score.require(score.number("tpot_ms"), "tpot_ms") / kMilli,
                             score.require(score.integer("batch", 0), "batch")});
    }
    results.push_back(std::move(r));
  }
  return results;
}

/// Evaluates what `results` lacks, block by block, and appends each block to --out.
void finish(const SearchCommandOptions& o, const sim::SearchSpace& space, const std::vector<sim::Shape>& all,
            const std::vector<sim::Platform>& platforms, const ordered_json& head,
            std::vector<sim::ShapeResult>& results) {
  constexpr int64_t kBlock = 256;
  const sim::SearchOptions options{
      .precision = {sim::weight_format(o.weights), sim::kv_format(o.kv)},
      .context = static_cast<double>(o.context),
      .plans = o.plans == "best" ? sim::PlanSpace::kAll : sim::PlanSpace::kServed};
  ThreadPool pool(static_cast<int>(o.threads));
  ProgressLine progress;
  const auto start = std::chrono::steady_clock::now();
  const auto done_before = static_cast<int64_t>(results.size());
  const auto total = static_cast<int64_t>(all.size());
  std::ofstream out;
  if (!o.out.empty()) {
    // What an earlier run had is written again, without the line that its end may have cut.
    out.open(o.out, std::ios::trunc);
    check<FileError>(out.is_open(), o.out.string(), ": cannot write: ", std::strerror(errno));
    out << json_text(head) << '\n';
    for (const sim::ShapeResult& r : results) out << json_text(result_json(r)) << '\n';
  }
  for (int64_t begin = done_before; begin < total; begin += kBlock) {
    const int64_t end = std::min(total, begin + kBlock);
    for (sim::ShapeResult& r : sim::evaluate_shapes(space, all, begin, end, platforms, options, pool)) {
      if (out.is_open()) out << json_text(result_json(r)) << '\n';
      results.push_back(std::move(r));
    }
    if (out.is_open()) check<FileError>(out.flush().good(), o.out.string(), ": cannot write");
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double rate = static_cast<double>(end - done_before) / seconds;
    progress.show(str(end, " of ", total, " shapes, ", static_cast<int64_t>(rate), " a second, ",
                      duration(static_cast<double>(total - end) / rate), " left"),
                  end == total);
  }
  progress.end();
}

ordered_json answer(const SearchCommandOptions& o, const sim::SearchSpace& space,
                    const std::vector<sim::Platform>& platforms,
                    const std::vector<sim::ShapeResult>& results) {
  const std::vector<size_t> front = sim::pareto_front(results, o.depth_floor);
  if (front.empty()) {
    std::string tried;
    for (const sim::Platform& p : platforms)
      tried += str(tried.empty() ? "" : ", ", p.cards, " cards of ", p.name, " within ",
                   p.max_step_s * kMilli, " ms");
    throw UsageError(str("none of ", results.size(), " shapes of at least ", o.depth_floor,
                         " layers can serve a request on ", tried));
  }
  const sim::Shape base = sim::shape_of(space.base);
  const sim::Rank rank = sim::rank_of(results, base, o.band);
  ordered_json front_json = ordered_json::array();
  for (const size_t i : front) front_json.push_back(result_json(results[i]));
  std::vector<size_t> best;
  for (size_t i = 0; i < results.size(); ++i)
    if (results[i].shape.num_hidden_layers >= o.depth_floor) best.push_back(i);
  const size_t listed = std::min(best.size(), static_cast<size_t>(o.top));
  std::partial_sort(best.begin(), best.begin() + static_cast<int64_t>(listed), best.end(),
                    [&](size_t a, size_t b) { return results[a].score() > results[b].score(); });
  ordered_json top = ordered_json::array();
  for (size_t i = 0; i < listed; ++i) top.push_back(result_json(results[best[i]]));
  ordered_json out = {
      {"shapes", results.size()},
      {"depth_floor", o.depth_floor},
      {"assumption", "the score is throughput alone; depth floor and active parameters stand for quality"},
      {"base", {{"shape", base.str()}, {"rank", rank.rank}, {"of", rank.of}, {"band", o.band}}},
      {"front", front_json},
      {"top", top}};
  for (const sim::ShapeResult& r : results)
    if (r.shape == base) out["base"]["result"] = result_json(r);
  return out;
}

void print_result(const ordered_json& r) {
  const sim::Shape s{r["hidden_size"],         r["num_hidden_layers"], r["num_attention_heads"],
                     r["num_key_value_heads"], r["num_experts"],       r["moe_intermediate_size"]};
  std::cout << std::left << std::setw(44) << s.str() << std::right << std::fixed << std::setprecision(1)
            << std::setw(7) << r["parameters"].get<double>() / kBillion << std::setw(7)
            << r["active_parameters"].get<double>() / kBillion;
  for (const ordered_json& p : r["platforms"])
    std::cout << std::setw(10) << p["tokens_per_s_per_card"].get<double>() << std::setw(6)
              << p["batch"].get<int64_t>() << std::setw(8) << p["tpot_ms"].get<double>();
  std::cout << '\n';
}

void print(const ordered_json& out, const std::vector<sim::Platform>& platforms) {
  std::cout << out["shapes"] << " shapes; best of at least " << out["depth_floor"]
            << " layers (an assumption: the score is throughput alone)\n\n"
            << std::left << std::setw(44) << "shape" << std::right << std::setw(7) << "B" << std::setw(7)
            << "active";
  for (size_t i = 0; i < platforms.size(); ++i)
    std::cout << std::setw(10) << "tok/s/card" << std::setw(6) << "batch" << std::setw(8) << "ms";
  std::cout << '\n';
  for (const ordered_json& r : out["top"]) print_result(r);
  std::cout << "\nPareto front: " << out["front"].size()
            << " shapes (throughput on each machine, active parameters)\n";
  if (out["base"].contains("result")) {
    print_result(out["base"]["result"]);
    std::cout << "the base model's shape ranks " << out["base"]["rank"] << " of " << out["base"]["of"]
              << " shapes as deep and as active (within " << 100 * out["base"]["band"].get<double>()
              << "%)\n";
  }
}

void write_page(const SearchCommandOptions& o, const ordered_json& out,
                const std::vector<sim::ShapeResult>& results, const std::vector<sim::Platform>& platforms) {
  if (!o.files.any()) return;
  ordered_json all = ordered_json::array();
  for (const sim::ShapeResult& r : results) all.push_back(result_json(r));
  std::vector<sim::SearchedMachine> machines;
  for (const sim::Platform& p : platforms) machines.push_back({p.name, p.cards, p.max_step_s * kMilli});
  o.files.write(sim::search_report(out, all, machines), out);
}

void search(const SearchCommandOptions& o) {
  const sim::SearchSpace space = sim::load_search_space(
      find_config_file("search", o.space),
      [](const std::string& name) { return spec::load_model_config(find_model(name)); });
  const std::vector<sim::Platform> platforms = load_platforms(o);
  const std::vector<sim::Shape> all = sim::shapes(space);
  const ordered_json head = header(o, space, platforms);
  std::vector<sim::ShapeResult> results;
  if (!o.out.empty()) results = read_results(o.out, head, all, platforms.size());
  finish(o, space, all, platforms, head, results);
  const ordered_json out = answer(o, space, platforms, results);
  write_page(o, out, results, platforms);
  if (o.files.json)
    print_json(out, 2);
  else
    print(out, platforms);
}

}  // namespace

Command search_command() {
  return make_command<SearchCommandOptions>(
      {"search", "finds model shapes by predicted throughput on several machines at once",
       "Each shape of the space gets its best plan and the largest batch within the objective, on every\n"
       "machine. Prints the best shapes and where the base model's own shape ranks.\n\n"
       "  moge search --space report --hardware ascend-800i-a2,ascend-300i-duo --slo-tpot-ms 50,100 \\\n"
       "    --out search.jsonl\n"},
      search);
}

}  // namespace moge::cli
