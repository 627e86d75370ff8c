#include "cli/ops_report.h"

#include <iomanip>
#include <iostream>

#include "cli/json_text.h"

namespace moge::cli {

using nlohmann::ordered_json;

OpsReport::OpsReport(Backend& backend, const std::string& model, bool json)
    : json_(json),
      copy_(backend.copy_bandwidth()),
      out_({{"device", backend.info().name},
            {"model", model},
            {"copy_bandwidth", copy_},
            {"ops", ordered_json::array()}}) {
  if (json_) return;
  std::cout << backend.info().name << ", copy bandwidth " << copy_ * 1e-9 << " GB/s\n"
            << std::left << std::setw(20) << "op" << std::setw(106) << "shape" << std::right << std::setw(10)
            << "us" << std::setw(9) << "GB/s" << std::setw(8) << "% copy" << std::setw(9) << "TFLOP/s\n";
}

void OpsReport::add(const LayerOp& op, const StepOpSeconds& seconds) {
  add(op, op.op, op.shape, seconds.chain, seconds.span);
  if (op.step.beside) add(op, "matmul_beside_routed", op.beside_shape, seconds.beside, seconds.span);
}

void OpsReport::add(const LayerOp& op, const char* name, ordered_json shape, double seconds, double span) {
  shape["dtype"] = op.dtype;
  out_["ops"].push_back({{"op", name},
                         {"what", op.what},
                         {"shape", shape},
                         {"ms", seconds * 1e3},
                         {"span_ms", span * 1e3},
                         {"bytes_per_second", op.bytes / seconds},
                         {"flops_per_second", op.flops / seconds}});
  if (json_) return;
  std::cout << std::left << std::setw(20) << op.what << std::setw(106) << shape.dump() << std::right
            << std::fixed << std::setprecision(1) << std::setw(10) << seconds * 1e6 << std::setw(9)
            << op.bytes / seconds * 1e-9 << std::setw(8) << 100 * op.bytes / seconds / copy_ << std::setw(8)
            << op.flops / seconds * 1e-12 << '\n';
}

void OpsReport::finish() const {
  if (json_) print_json(out_, 1);
}

}  // namespace moge::cli
