// What `moge bench ops` prints: a line for each operator as it is measured, or one JSON object at the end.
#pragma once
#include <map>
#include <string>

#include "cli/layer_ops.h"

namespace moge::cli {

class OpsReport {
 public:
  /// Measures the device's ceilings, those of products of `dtype` and of the head's bf16; prints the table's
  /// head.
  OpsReport(Backend& backend, const std::string& model, DType dtype, bool json);
  void add(const LayerOp& op, const StepOpSeconds& seconds);
  void finish() const;

 private:
  void add(const LayerOp& op, const char* name, nlohmann::ordered_json shape, double seconds, double span);

  bool json_;
  double copy_;                             ///< bytes/s
  std::map<std::string, double> products_;  ///< product_ceiling() (cli/device_roof.h) by type
  nlohmann::ordered_json out_;
};

}  // namespace moge::cli
