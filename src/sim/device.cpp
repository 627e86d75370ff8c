#include "sim/device.h"

#include "core/error.h"

namespace moge::sim {

namespace {

/// What was measured of that type, or its peak times the calibrated efficiency.
double sustained(const spec::Hardware& hardware, const Calibration& calibration, DType dtype) {
  const auto measured = hardware.sustained_flops.find(dtype);
  return measured != hardware.sustained_flops.end()
             ? measured->second.value
             : hardware.peak(dtype) * calibration.matmul_efficiency.value;
}

}  // namespace

double Device::matmul_flops(WeightFormat format) const {
  switch (format) {
    case WeightFormat::k16:
      return dense_flops;
    case WeightFormat::kW8A8:
    case WeightFormat::kW4A8:
      return sustained(hardware, calibration, DType::kI8);
    case WeightFormat::kFp8:
      return sustained(hardware, calibration, DType::kFP8E4M3);
  }
  return 0;
}

Device make_device(const spec::Hardware& hardware, const Calibration& c) {
  constexpr double kMicro = 1e-6;
  constexpr double kPico = 1e-12;
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  Device d;
  d.hardware = hardware;
  d.calibration = c;
  d.dense_flops = hardware.peak_16bit() * c.matmul_efficiency.value;
  d.attention_flops = hardware.peak_16bit() * c.attention_efficiency.value;
  d.memory_bandwidth = hardware.memory_bandwidth.value * c.memory_efficiency.value;
  d.kv_bandwidth = hardware.memory_bandwidth.value * c.kv_efficiency.value;
  d.memory_bytes = hardware.memory_bytes.value - c.reserved_gib.value * kGiB;
  check<UsageError>(d.memory_bytes > 0, hardware.name, ": ", c.reserved_gib.value,
                    " GiB reserved leave nothing of its memory");
  d.op_s = c.op_us.value * kMicro;
  d.collective_s = c.collective_us.value * kMicro;
  d.moe_layer_s = c.moe_layer_us.value * kMicro;
  d.step_s = c.step_us.value * kMicro;
  d.score_s = c.score_ps.value * kPico;
  d.overlap = c.overlap.value;
  return d;
}

}  // namespace moge::sim
