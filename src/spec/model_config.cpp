#include "spec/model_config.h"

#include <cmath>

#include "core/error.h"
#include "spec/architectures.h"

namespace moge::spec {
namespace {

// Bounds far beyond any model, chosen so that every count of parameters, bytes and KV entries made from a
// valid config fits in int64: parameters stay below 2^56, KV bytes of 2^30 tokens below 2^62.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxHidden = int64_t{1} << 17;
constexpr int64_t kMaxLayers = int64_t{1} << 10;
constexpr int64_t kMaxHeads = int64_t{1} << 12;
constexpr int64_t kMaxHeadDim = int64_t{1} << 12;
constexpr int64_t kMaxAttentionWidth = int64_t{1} << 18;
constexpr int64_t kMaxPositions = int64_t{1} << 30;
constexpr int64_t kMaxExperts = int64_t{1} << 14;
constexpr int64_t kMaxMlpWidth = int64_t{1} << 24;  ///< also of all experts of a layer together

class Validator {
 public:
  explicit Validator(const std::string& source) : source_(source) {}

  void in_range(const char* key, int64_t value, int64_t min, int64_t max) const {
    check<FileError>(value >= min && value <= max, source_, ": ", key, " ", value, ": expected ", min, " to ",
                     max);
  }
  void divides(const char* key, int64_t value, const char* by_key, int64_t by) const {
    check<FileError>(value % by == 0, source_, ": ", key, " ", value, " is not divisible by ", by_key, " ",
                     by);
  }
  void at_most(const char* key, int64_t value, const char* limit_key, int64_t limit) const {
    check<FileError>(value <= limit, source_, ": ", key, " ", value, " exceeds ", limit_key, " ", limit);
  }
  void number(const char* key, double value, bool ok, const char* expected) const {
    check<FileError>(std::isfinite(value) && ok, source_, ": ", key, " ", value, ": expected ", expected);
  }
  template <class... Args>
  void that(bool ok, const Args&... message) const {
    check<FileError>(ok, source_, ": ", message...);
  }

 private:
  const std::string& source_;
};

void validate_attention(const ModelConfig& c, const Validator& v) {
  v.in_range("num_attention_heads", c.num_attention_heads, 1, kMaxHeads);
  v.in_range("num_key_value_heads", c.num_key_value_heads, 1, kMaxHeads);
  v.divides("num_attention_heads", c.num_attention_heads, "num_key_value_heads", c.num_key_value_heads);
  v.in_range("head_dim", c.head_dim, 2, kMaxHeadDim);
  v.that(c.head_dim % 2 == 0, "head_dim ", c.head_dim,
         " is odd: rotary positions pair the first half of a head with the second");
  v.in_range("num_attention_heads x head_dim", c.q_dim(), 1, kMaxAttentionWidth);
  v.number("rope_theta", c.rope_theta, c.rope_theta >= 1.0, "a finite number of at least 1");
}

void validate_moe(const ModelConfig& c, const Validator& v) {
  v.in_range("num_experts", c.num_experts, 1, kMaxExperts);
  v.in_range("num_experts_per_tok", c.num_experts_per_tok, 1, kMaxExperts);
  v.in_range("num_expert_groups", c.num_expert_groups, 1, kMaxExperts);
  v.divides("num_experts", c.num_experts, "num_expert_groups", c.num_expert_groups);
  v.divides("num_experts_per_tok", c.num_experts_per_tok, "num_expert_groups", c.num_expert_groups);
  v.at_most("num_experts_per_tok", c.num_experts_per_tok, "num_experts", c.num_experts);
  v.in_range("moe_intermediate_size", c.moe_intermediate_size, 1, kMaxMlpWidth);
  v.in_range("shared_expert_intermediate_size", c.shared_expert_intermediate_size, 0, kMaxMlpWidth);
  // The shared expert runs as that many experts of the routed width in the same grouped matmul.
  v.divides("shared_expert_intermediate_size", c.shared_expert_intermediate_size, "moe_intermediate_size",
            c.moe_intermediate_size);
  v.in_range("num_experts x moe_intermediate_size", c.num_experts * c.moe_intermediate_size, 1, kMaxMlpWidth);
  v.number("router_aux_loss_coef", c.router_aux_loss_coef, c.router_aux_loss_coef >= 0.0,
           "a finite number of at least 0");
}

void validate_dense(const ModelConfig& c, const Validator& v) {
  v.in_range("intermediate_size", c.intermediate_size, 1, kMaxMlpWidth);
  const auto unused = [&](const char* key, int64_t value) {
    v.that(value == 0, key, " ", value, ": expected none, since model_type '", c.model_type, "' is dense");
  };
  unused("num_experts", c.num_experts);
  unused("num_experts_per_tok", c.num_experts_per_tok);
  unused("moe_intermediate_size", c.moe_intermediate_size);
  unused("shared_expert_intermediate_size", c.shared_expert_intermediate_size);
}

}  // namespace

void ModelConfig::validate(const std::string& source) const {
  const Validator v(source);
  const Architecture& architecture =
      find_architecture(model_type, architectures.empty() ? "" : architectures.front(), source);
  v.in_range("vocab_size", vocab_size, 1, kMaxVocab);
  v.in_range("hidden_size", hidden_size, 1, kMaxHidden);
  v.in_range("num_hidden_layers", num_hidden_layers, 1, kMaxLayers);
  v.in_range("max_position_embeddings", max_position_embeddings, 1, kMaxPositions);
  v.that(hidden_act == "silu", "hidden_act '", hidden_act, "' is not supported; supported: silu");
  v.number("rms_norm_eps", rms_norm_eps, rms_norm_eps > 0.0 && rms_norm_eps < 1.0,
           "a number between 0 and 1");
  v.number("initializer_range", initializer_range, initializer_range >= 0.0, "a finite number of at least 0");
  validate_attention(*this, v);
  v.in_range("intermediate_size", intermediate_size, 0, kMaxMlpWidth);
  if (architecture.is_moe) {
    validate_moe(*this, v);
  } else {
    validate_dense(*this, v);
  }
  const auto in_vocabulary = [&](const char* key, int64_t id) { v.in_range(key, id, 0, vocab_size - 1); };
  if (bos_token_id) in_vocabulary("bos_token_id", *bos_token_id);
  for (const int64_t id : eos_token_id) in_vocabulary("eos_token_id", id);
  if (pad_token_id) in_vocabulary("pad_token_id", *pad_token_id);
  v.that(torch_dtype == DType::kF32 || torch_dtype == DType::kBF16 || torch_dtype == DType::kF16,
         "torch_dtype ", name_of(torch_dtype), ": expected float32, bfloat16 or float16");
}

}  // namespace moge::spec
