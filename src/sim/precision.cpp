#include "sim/precision.h"

#include "core/error.h"

namespace moge::sim {

double Precision::weight_bytes() const {
  switch (weights) {
    case WeightFormat::k16:
      return 2;
    case WeightFormat::kW8A8:
    case WeightFormat::kFp8:
      return 1;
    case WeightFormat::kW4A8:
      return 0.5;
  }
  return 0;
}

double Precision::activation_bytes() const {
  return weights == WeightFormat::k16 ? 2 : 1;
}

double Precision::kv_bytes() const {
  switch (kv) {
    case KvFormat::k16:
      return 2;
    case KvFormat::k8:
      return 1;
    case KvFormat::k4:
      return 0.5;
  }
  return 0;
}

WeightFormat weight_format(const std::string& name) {
  if (name == "bf16" || name == "fp16") return WeightFormat::k16;
  if (name == "w8a8") return WeightFormat::kW8A8;
  if (name == "w4a8") return WeightFormat::kW4A8;
  if (name == "fp8") return WeightFormat::kFp8;
  throw UsageError(str("weights '", name, "': expected bf16, fp16, w8a8, w4a8 or fp8"));
}

KvFormat kv_format(const std::string& name) {
  if (name == "bf16" || name == "fp16") return KvFormat::k16;
  if (name == "int8" || name == "fp8") return KvFormat::k8;
  if (name == "int4") return KvFormat::k4;
  throw UsageError(str("kv '", name, "': expected bf16, fp16, int8, fp8 or int4"));
}

const char* name_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::k16:
      return "fp16";
    case WeightFormat::kW8A8:
      return "w8a8";
    case WeightFormat::kW4A8:
      return "w4a8";
    case WeightFormat::kFp8:
      return "fp8";
  }
  return "?";
}

const char* name_of(KvFormat format) {
  switch (format) {
    case KvFormat::k16:
      return "fp16";
    case KvFormat::k8:
      return "int8";
    case KvFormat::k4:
      return "int4";
  }
  return "?";
}

}  // namespace moge::sim
