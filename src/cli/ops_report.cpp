#include "cli/ops_report.h"

#include <iomanip>
#include <iostream>

#include "cli/device_roof.h"
#include "cli/json_text.h"

namespace moge::cli {

using nlohmann::ordered_json;

OpsReport::OpsReport(Backend& backend, const std::string& model, DType dtype, bool json)
    : json_(json), copy_(backend.copy_bandwidth()) {  // first: products heat the card
  for (const DType operands : {dtype, DType::kBF16})
    if (!products_.contains(name_of(operands)))
      products_[name_of(operands)] = product_ceiling(backend, operands);
  out_ = {{"device", backend.info().name},
          {"model", model},
          {"copy_bandwidth", copy_},
          {"product_ceilings", products_},
          {"ops", ordered_json::array()}};
  if (json_) return;
  std::cout << std::fixed << std::setprecision(1) << backend.info().name << ", copy bandwidth "
            << copy_ * 1e-9 << " GB/s, large dense products of ours";
  for (const auto& [operands, flops] : products_) std::cout << ", " << operands << " " << flops * 1e-12;
  std::cout << " TFLOP/s\n"
            << std::left << std::setw(20) << "op" << std::setw(106) << "shape" << std::right << std::setw(10)
            << "us" << std::setw(9) << "GB/s" << std::setw(8) << "% copy" << std::setw(8) << "TFLOP/s"
            << std::setw(11) << "% product\n";
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
            << op.flops / seconds * 1e-12;
  if (const auto ceiling = products_.find(op.dtype); op.is_product() && ceiling != products_.end())
    std::cout << std::setw(10) << 100 * op.flops / seconds / ceiling->second;
  std::cout << '\n';
}

void OpsReport::finish() const {
  if (json_) print_json(out_, 1);
}

}  // namespace moge::cli
