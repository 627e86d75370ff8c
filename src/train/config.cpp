#include "train/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "core/json.h"
#include "core/toml.h"

namespace moge::train {

namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 20;
// Beyond any run, and small enough that the steps of all phases that fit in a file add up without overflow.
constexpr int64_t kMaxSteps = int64_t{1} << 40;
constexpr int64_t kMaxBatchTokens = INT32_MAX;  // ops count tokens in 32 bits

/// One table of the file: reads keys into members that already hold their defaults, and refuses the rest.
class Section {
 public:
  Section(const nlohmann::json& value, const std::string& where) : object_(value, where) {}

  void read(const char* key, double& to, double min, double max) {
    const std::optional<double> v = object_.number(key);
    check<FileError>(!v || (*v >= min && *v <= max), object_.where(), ": ", key, " = ", v.value_or(0),
                     ": expected ", min, " to ", max);
    to = v.value_or(to);
  }
  void read(const char* key, float& to, double min, double max) {
    double value = to;
    read(key, value, min, max);
    to = static_cast<float>(value);
  }
  void read(const char* key, int64_t& to, int64_t min, int64_t max = INT64_MAX) {
    to = object_.integer(key, min, max).value_or(to);
  }
  void read(const char* key, std::string& to) { to = object_.text(key).value_or(to); }
  void read(const char* key, std::filesystem::path& to) { to = object_.text(key).value_or(to.string()); }
  template <class T>
  void read_choice(const char* key, T& to, const std::vector<std::pair<std::string, T>>& choices) {
    const std::optional<std::string> name = object_.text(key);
    if (!name) return;
    std::string all;
    for (const auto& [choice, value] : choices) {
      if (choice == *name) {
        to = value;
        return;
      }
      all += (all.empty() ? "" : ", ") + choice;
    }
    throw FileError(str(object_.where(), ": ", key, " = \"", *name, "\": expected one of ", all));
  }
  const nlohmann::json* find(const char* key) { return object_.find(key); }
  /// For keys that have no default.
  void require_key(const char* key) {
    if (!object_.has(key)) object_.throw_missing(key);
  }
  void require_value(bool ok, const char* key, const char* expected) const {
    if (!ok) object_.throw_wrong(key, expected);
  }
  void require(bool ok, const std::string& what) const { check<FileError>(ok, object_.where(), ": ", what); }
  /// Every key must have been read.
  void finish() const { object_.refuse_unread(); }

 private:
  JsonObject object_;
};

Phase read_phase(const nlohmann::json& value, const std::string& where) {
  Phase p;
  Section s(value, where);
  s.read("name", p.name);
  s.read("steps", p.steps, 1, kMaxSteps);
  s.read("lr", p.lr, 0, 10);
  s.read("final_lr", p.final_lr, 0, 10);
  s.read("warmup_steps", p.warmup_steps, 0);
  s.read_choice("schedule", p.decay,
                {{"constant", Decay::kConstant}, {"cosine", Decay::kCosine}, {"wsd", Decay::kWsd}});
  s.read("decay_fraction", p.decay_fraction, 0, 1);
  s.read("batch_tokens", p.batch_tokens, 1, kMaxBatchTokens);
  s.read("sequence_length", p.sequence_length, 2);
  s.finish();
  for (const char* key : {"steps", "batch_tokens", "sequence_length"}) s.require_key(key);
  s.require(p.batch_tokens % p.sequence_length == 0,
            str("batch_tokens = ", p.batch_tokens,
                ": expected a multiple of sequence_length = ", p.sequence_length));
  s.require(p.warmup_steps <= p.steps, str("warmup_steps = ", p.warmup_steps, " exceeds steps = ", p.steps));
  return p;
}

void read_phases(TrainConfig& c, const nlohmann::json* list, const std::string& where) {
  check<FileError>(list && list->is_array() && !list->empty(), where,
                   ": expected one or more [[phase]] tables, got ", list ? json_excerpt(*list) : "none");
  for (const nlohmann::json& value : *list) {
    const Phase p = read_phase(value, str(where, ": phase ", c.phases.size() + 1));
    check<FileError>(c.micro_batch_tokens == 0 || (p.batch_tokens % c.micro_batch_tokens == 0 &&
                                                   c.micro_batch_tokens % p.sequence_length == 0),
                     where, ": micro_batch_tokens = ", c.micro_batch_tokens,
                     ": expected a divisor of batch_tokens = ", p.batch_tokens,
                     " and a multiple of sequence_length = ", p.sequence_length);
    c.phases.push_back(p);
  }
}

}  // namespace

std::string config_difference(const std::string& saved, const std::string& now) {
  const nlohmann::json a = parse_toml(saved, "the checkpoint's configuration");
  const nlohmann::json b = parse_toml(now, "the configuration");
  const nlohmann::json changes = nlohmann::json::diff(a, b);
  if (changes.empty()) return "";
  const nlohmann::json& first = changes[0];
  const std::string path = first["path"];
  const nlohmann::json::json_pointer key(path);
  return str(path, ": saved ", a.contains(key) ? json_excerpt(a[key]) : "nothing", ", now ",
             first.contains("value") ? json_excerpt(first["value"]) : "nothing");
}

TrainConfig load_train_config(const std::filesystem::path& path) {
  TrainConfig c;
  c.text = read_text_file(path, kMaxFileBytes);
  const nlohmann::json root = parse_toml(c.text, path.string());
  const std::string where = path.string();
  Section top(root, where);
  const auto section = [&](const char* name, const auto& read) {
    const nlohmann::json* value = top.find(name);
    if (!value) return;
    Section s(*value, str(where, ": [", name, "]"));
    read(s);
    s.finish();
  };
  int64_t seed = 1;
  top.read("seed", seed, 0);
  c.seed = static_cast<uint64_t>(seed);
  top.read("output", c.output);
  section("model", [&](Section& s) {
    s.read("config", c.model);
    s.read("init_from", c.init_from);
    s.read_choice("dtype", c.dtype, {{"bf16", DType::kBF16}, {"f32", DType::kF32}});
    s.require(!c.model.empty() || !c.init_from.empty(), "expected config or init_from, got neither");
    s.require(c.model.empty() || c.init_from.empty(), "expected config or init_from, got both");
  });
  section("data", [&](Section& s) {
    s.read("tokenizer", c.tokenizer);
    s.read("holdout_modulus", c.holdout_modulus, 2);
    for (const char* key : {"tokenizer", "paths"}) s.require_key(key);
    const nlohmann::json& paths = *s.find("paths");
    const bool listed = paths.is_array() && !paths.empty() &&
                        std::ranges::all_of(paths, [](const nlohmann::json& p) { return p.is_string(); });
    s.require_value(listed, "paths", "a list of files or directories");
    for (const nlohmann::json& p : paths) c.data.emplace_back(p.get<std::string>());
  });
  section("batch",
          [&](Section& s) { s.read("micro_batch_tokens", c.micro_batch_tokens, 0, kMaxBatchTokens); });
  section("optimizer", [&](Section& s) {
    s.read("beta1", c.optimizer.beta1, 0, 1);
    s.read("beta2", c.optimizer.beta2, 0, 1);
    s.read("eps", c.optimizer.eps, 0, 1);
    // As floats: 1 - 1e-9 is 1 there, and 1 - beta^t and sqrt(v) + eps are divisors.
    for (const auto& [key, beta] : {std::pair{"beta1", c.optimizer.beta1}, {"beta2", c.optimizer.beta2}})
      s.require_value(beta < 1, key, "a number of 0 or more and less than 1 in single precision");
    s.require_value(c.optimizer.eps > 0, "eps", "a number of more than 0 in single precision");
    s.read("weight_decay", c.optimizer.weight_decay, 0, 10);
    s.read("clip_grad_norm", c.optimizer.clip_grad_norm, 0, 1e9);
  });
  section("loss", [&](Section& s) {
    s.read("balance_coef", c.loss.balance_coef, 0, 1e3);
    s.read("z_coef", c.loss.z_coef, 0, 1e3);
    s.read_choice("balance_level", c.loss.balance_level,
                  {{"batch", BalanceLevel::kBatch}, {"sequence", BalanceLevel::kSequence}});
    s.read("spike_sigmas", c.spike_sigmas, 0, 1e6);
  });
  section("eval", [&](Section& s) {
    s.read("every", c.eval_every, 0);
    s.read("tokens", c.eval_tokens, 1);
  });
  section("checkpoint", [&](Section& s) {
    s.read("every", c.checkpoint_every, 0);
    s.read("keep", c.keep_checkpoints, 1);
  });
  read_phases(c, top.find("phase"), where);
  top.finish();
  top.require(!c.model.empty() || !c.init_from.empty(), "needs a [model] table");
  top.require(!c.data.empty(), "needs a [data] table");
  top.require(!c.tokenizer.empty(), "[data]: needs tokenizer");
  top.require(!c.output.empty(), "needs output, the directory for checkpoints and logs");
  return c;
}

}  // namespace moge::train
