// One device as the step model sees it: a machine's ceilings times its calibrated efficiencies.
#pragma once
#include "sim/calibration.h"
#include "sim/precision.h"
#include "spec/hardware.h"

namespace moge::sim {

struct Device {
  spec::Hardware hardware;
  Calibration calibration;

  double dense_flops = 0;       ///< FLOP/s of 16-bit matmuls, sustained
  double attention_flops = 0;   ///< FLOP/s of prefill's attention, sustained
  double memory_bandwidth = 0;  ///< bytes/s, sustained
  double kv_bandwidth = 0;      ///< bytes/s, sustained
  double memory_bytes = 0;      ///< without what the runtime keeps
  double op_s = 0;
  double collective_s = 0;
  double moe_layer_s = 0;
  double step_s = 0;
  double score_s = 0;
  double overlap = 0;

  /// FLOP/s of a matmul in that format, sustained. Throws UsageError if the machine has no such peak.
  double matmul_flops(WeightFormat format) const;
};

/// Throws UsageError for a machine without a 16-bit peak or with less memory than is reserved.
Device make_device(const spec::Hardware& hardware, const Calibration& calibration);

}  // namespace moge::sim
