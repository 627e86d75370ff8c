// The number formats of a served model.
#pragma once
#include <cstdint>
#include <string>

namespace moge::sim {

/// Of the layers' matmuls, weights and activations; embedding, router and lm_head stay 16 bit.
enum class WeightFormat : uint8_t { k16, kW8A8, kW4A8, kFp8 };
enum class KvFormat : uint8_t { k16, k8, k4 };

struct Precision {
  WeightFormat weights = WeightFormat::k16;
  KvFormat kv = KvFormat::k16;

  double weight_bytes() const;      ///< of one weight
  double activation_bytes() const;  ///< of one input element of a quantised matmul
  double kv_bytes() const;          ///< of one cached element
};

/// "w8a8", "w4a8", "fp8", "bf16" or "fp16"; "fp16", "bf16", "int8", "fp8" or "int4". UsageError names these.
WeightFormat weight_format(const std::string& name);
KvFormat kv_format(const std::string& name);
const char* name_of(WeightFormat format);
const char* name_of(KvFormat format);

}  // namespace moge::sim
