// Shipped models and machines, for tests.
#pragma once
#include <string>

#include "sim/device.h"
#include "spec/model_config.h"

namespace moge::sim {

inline const std::string kConfigs = MOGE_SOURCE_DIR "/configs/";

inline spec::ModelConfig shipped_model(const std::string& name) {
  return spec::load_model_config(kConfigs + "models/" + name);
}
inline spec::Hardware shipped_hardware(const std::string& name) {
  return spec::load_hardware(kConfigs + "hardware/" + name + ".toml");
}
inline Calibration shipped_calibration(const std::string& name) {
  return load_calibration(kConfigs + "sim/" + name + ".toml");
}
inline Device shipped_device(const std::string& name) {
  return make_device(shipped_hardware(name), shipped_calibration(name));
}

}  // namespace moge::sim
