// The constants that turn a machine's ceilings (configs/hardware) into times: one file per machine,
// configs/sim/NAME.toml, in which each constant says where it comes from. docs/sim.md explains each.
#pragma once
#include <array>
#include <filesystem>
#include <string>
#include <vector>

namespace moge::sim {

struct Constant {
  double value = 0;
  std::string status;  ///< "datasheet", "prior", "fitted", "measured" or "quoted"
  std::string source;
  /// Of fitted ones: the value expected before any row was seen, and the standard deviation of its logarithm.
  double prior = 0;
  double spread = 0;
  bool fitted() const { return status == "fitted"; }
};

struct Calibration {
  std::string hardware;           ///< the name of its file under configs/hardware
  Constant matmul_efficiency;     ///< sustained / peak FLOPs of a matmul whose tiles fill the machine
  Constant memory_efficiency;     ///< sustained / peak bytes/s: weights and element-wise kernels
  Constant kv_efficiency;         ///< sustained / peak bytes/s of decoding attention's keys and values
  Constant attention_efficiency;  ///< sustained / 16-bit peak FLOPs of prefill's attention
  Constant score_ps;              ///< decoding attention's vector work for one (query head, position) pair
  Constant link_efficiency;       ///< sustained / peak bytes/s of every link
  Constant op_us;                 ///< a kernel's fixed time: launch, ramp and tail
  Constant collective_us;         ///< a collective's least time
  Constant moe_layer_us;          ///< what a MoE layer's routing kernels cost beyond their number times op_us
  Constant step_us;               ///< once a step: inputs, sampling, the way back to the host
  Constant overlap;               ///< share of a fused collective hidden behind its matmul (GMMRS, AGMM)
  Constant reserved_gib;          ///< memory that the runtime keeps from weights, cache and activations
  std::vector<std::string> rows;  ///< ids of the measurements that the fitted ones were fitted to
};

struct ConstantField {
  const char* name;
  Constant Calibration::*member;
  double min;  ///< of its value; max likewise
  double max;
};
inline constexpr int kNumConstants = 12;
const std::array<ConstantField, kNumConstants>& constant_fields();

/// Throws FileError: a missing or unknown constant, a value out of range, a fitted one without its prior.
Calibration load_calibration(const std::filesystem::path& file);
/// The file that load_calibration() reads.
std::string to_toml(const Calibration& calibration);

}  // namespace moge::sim
