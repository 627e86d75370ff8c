// What `moge bench ops` prints: a line for each operator as it is measured, or one JSON object at the end.
#pragma once
#include <string>

#include "cli/layer_ops.h"

namespace moge::cli {

class OpsReport {
 public:
  /// Measures the device's ceilings; prints the table's head.
  OpsReport(Backend& backend, const std::string& model, bool json);
  void add(const LayerOp& op, const StepOpSeconds& seconds);
  void finish() const;

 private:
  void add(const LayerOp& op, const char* name, nlohmann::ordered_json shape, double seconds, double span);

  bool json_;
  double copy_;  ///< bytes/s
  nlohmann::ordered_json out_;
};

}  // namespace moge::cli
