#include "sim/comparison.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"

namespace moge::sim {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{16} << 20;
constexpr int64_t kMaxCount = int64_t{1} << 40;
constexpr double kMilli = 1e-3;
constexpr double kMaxMs = 1e9;

/// The comparison's name of a call of the engine's: in each layer its ops come in a fixed order.
std::string name_of_call(const MeasuredRun::Op& op, int64_t layers, size_t index) {
  const size_t calls = op.call_seconds.size(), L = static_cast<size_t>(layers);
  const auto in_turn = [&](const auto&... names) {
    const char* const all[] = {names...};
    return all[index % sizeof...(names)];
  };
  if (op.op == "quant_matmul" && (calls == 4 * L + 1 || calls == 6 * L + 1)) {
    if (index + 1 == calls) return "lm_head";
    return calls == 4 * L + 1 ? in_turn("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
                              : in_turn("qkv_proj", "o_proj", "gate_up_proj", "shared_gate_up_proj",
                                        "down_proj", "shared_down_proj");
  }
  // A step of one token: the first layer's norm and qkv stand for what the last layer's op does not do.
  if (op.op == "quant_matmul" && calls == 2) return index == 0 ? "token_layer" : "lm_head";
  if (op.op == "residual_norm" && calls == 1) return "token_layer";
  // The first norm of a step adds nothing, its last one adds the last layer's experts: one for the other.
  if (op.op == "residual_norm" && calls == 2 * L + 1) return in_turn("attention_norm", "mlp_norm");
  if (op.op == "quantize_rows" && calls == 2 * L) return in_turn("attention_quant", "mlp_quant");
  if (op.op == "quantize_rows" && calls == 3 * L)
    return in_turn("attention_quant", "shared_quant", "mlp_quant");
  if (op.op == "decode_inputs" || op.op == "rope_table" || op.op == "embedding_fwd") return "step_inputs";
  return op.op;
}

/// The same name for a kernel of the step model.
const char* name_of_kernel(Op op) {
  switch (op) {
    case Op::kQkv:
      return "qkv_proj";
    case Op::kOProj:
      return "o_proj";
    case Op::kGateUp:
    case Op::kExpertGateUp:
      return "gate_up_proj";
    case Op::kSharedGateUp:
      return "shared_gate_up_proj";
    case Op::kDown:
    case Op::kExpertDown:
      return "down_proj";
    case Op::kSharedDown:
      return "shared_down_proj";
    case Op::kLmHead:
      return "lm_head";
    case Op::kAttention:
    case Op::kPrefillAttention:
      return "paged_attention";
    case Op::kAttentionNorm:
    case Op::kCombine:
    case Op::kFinalNorm:
      return "attention_norm";
    case Op::kMlpNorm:
      return "mlp_norm";
    case Op::kAttentionQuant:
      return "attention_quant";
    case Op::kSwiglu:
    case Op::kExpertSwiglu:
    case Op::kExpertQuant:
      return "mlp_quant";
    case Op::kSharedSwiglu:
      return "shared_quant";
    case Op::kRope:
    case Op::kKvWrite:
    case Op::kRopeKvWrite:
      return "rope_kv_write";
    case Op::kRouter:
    case Op::kSoftmax:
    case Op::kGroupTopk:
    case Op::kRouterScale:
    case Op::kSortExperts:
    case Op::kPermute:
    case Op::kMoeLayer:
    case Op::kMoeRoute:
      return "moe_route";
    case Op::kTokenLayer:
      return "token_layer";
    case Op::kSampling:
      return "sampling";
    case Op::kEmbedding:
      return "step_inputs";
    default:
      return "host";
  }
}

}  // namespace

StepLoad MeasuredRun::load() const {
  const auto requests = static_cast<double>(batch);
  return decode ? decode_load(requests, context) : prefill_load(requests, context);
}

Precision MeasuredRun::precision() const {
  const WeightFormat w = weights == "i8"         ? WeightFormat::kW8A8
                         : weights == "fp8_e4m3" ? WeightFormat::kFp8
                                                 : WeightFormat::k16;
  return {w, kv == "bf16" || kv == "f16" ? KvFormat::k16 : KvFormat::k8};
}

MeasuredRun load_measured_run(const std::filesystem::path& file) {
  const nlohmann::json root = parse_json(read_text_file(file, kMaxFileBytes), file.string());
  JsonObject top(root, file.string());
  const auto text = [&](const char* key) { return top.require(top.text(key), key); };
  const auto count = [&](const char* key) { return top.require(top.integer(key, 1, kMaxCount), key); };
  const auto milliseconds = [](JsonObject& object, const char* key) {
    const double ms = object.require(object.number(key), key);
    check<FileError>(ms > 0 && ms <= kMaxMs, object.where(), ": ", key, " ", ms,
                     ": expected a number above 0, at most ", kMaxMs);
    return ms * kMilli;
  };
  const auto dtype = [&](const char* key, bool f16) {
    const std::string value = text(key);
    check<FileError>(value == "i8" || value == "fp8_e4m3" || value == "bf16" || (f16 && value == "f16"),
                     file.string(), ": ", key, " '", value, "': expected i8, fp8_e4m3",
                     f16 ? ", bf16 or f16" : " or bf16");
    return value;
  };
  const std::string benchmark = text("benchmark");
  check<FileError>(benchmark == "decode" || benchmark == "prefill", file.string(), ": benchmark '", benchmark,
                   "': expected decode or prefill");
  MeasuredRun run;
  run.decode = benchmark == "decode";
  run.device = text("device");
  run.model = text("model");
  run.layers = count("layers");
  run.weights = dtype("weights", false);
  run.kv = dtype("kv_dtype", true);
  run.batch = count("batch");
  run.context = static_cast<double>(count(run.decode ? "mean_context" : "context"));
  run.seconds = milliseconds(top, run.decode ? "step_ms" : "ttft_ms");
  if (top.find("host_ms")) run.host_seconds = milliseconds(top, "host_ms");
  const nlohmann::json* ops = top.find("ops");
  check<FileError>(ops && ops->is_array(), file.string(),
                   ": expected an array 'ops', of a run with --profile");
  for (const nlohmann::json& value : *ops) {
    JsonObject op(value, str(file.string(), ": ops[", run.ops.size(), "]"));
    MeasuredRun::Op line{op.require(op.text("op"), "op"), {}};
    const nlohmann::json* calls = op.find("call_ms");
    if (!calls) op.throw_missing("call_ms");
    check<FileError>(calls->is_array() && !calls->empty(), op.where(),
                     ": call_ms: expected a list of numbers");
    for (const nlohmann::json& ms : *calls) {
      check<FileError>(ms.is_number() && ms.get<double>() >= 0 && ms.get<double>() <= kMaxMs, op.where(),
                       ": call_ms: ", json_excerpt(ms), ": expected a number from 0 to ", kMaxMs);
      line.call_seconds.push_back(ms.get<double>() * kMilli);
    }
    run.ops.push_back(std::move(line));
  }
  check<FileError>(!run.ops.empty(), file.string(), ": 'ops' is empty");
  return run;
}

double Comparison::mean_op_error() const {
  double errors = 0, weight = 0;
  for (const ComparedOp& op : ops) {
    if (op.measured_s <= 0 || op.predicted_s <= 0) continue;
    errors += op.measured_s * std::abs(op.error());
    weight += op.measured_s;
  }
  return weight > 0 ? errors / weight : 0;
}

Comparison compare(const MeasuredRun& run, double step_s, const StepBreakdown& spans) {
  Comparison out{.measured_s = run.seconds, .predicted_s = step_s, .ops = {}};
  const auto named = [&](const std::string& name) -> ComparedOp& {
    const auto it = std::ranges::find(out.ops, name, &ComparedOp::op);
    return it != out.ops.end() ? *it : out.ops.emplace_back(ComparedOp{.op = name});
  };
  double all = 0;
  for (const MeasuredRun::Op& op : run.ops)
    for (size_t i = 0; i < op.call_seconds.size(); ++i) {
      named(name_of_call(op, run.layers, i)).measured_s += op.call_seconds[i];
      all += op.call_seconds[i];
    }
  // A prefill's inputs and first launches; of older runs what is left.
  const double host = run.host_seconds.value_or(run.seconds - all);
  if (!run.decode && host > 0) named("host").measured_s = host;
  std::map<std::string, double> longest;  // the kernel that decides what an op's time rests on
  for (const OpRow& row : spans.ops) {
    ComparedOp& op = named(name_of_kernel(row.op));
    op.predicted_s += row.seconds;
    if (row.seconds <= longest[op.op]) continue;
    longest[op.op] = row.seconds;
    op.basis = row.basis;
  }
  std::ranges::stable_sort(out.ops, std::greater{}, &ComparedOp::measured_s);
  return out;
}

}  // namespace moge::sim
