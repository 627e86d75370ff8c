#include "cli/device_roof.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/product_bench.h"

namespace moge::cli {

namespace {

/// Rows, columns and depth of the product: all of a Hopper's multiprocessors for many tiles each.
constexpr int64_t kSize = 8192;

}  // namespace

double product_ceiling(Backend& backend, DType operands) {
  const ProductBench product(backend, {"a large dense product", 1, kSize, kSize, operands},
                             same_rows(1, kSize), false);
  const double seconds =
      product.seconds([](ExecContext& ctx, const ops::QuantMatmul& call) { ops::quant_matmul(ctx, call); });
  return product.flops() / seconds;
}

DeviceRoof measure_roof(Backend& backend, DType operands) {
  const double copy = backend.copy_bandwidth();  // first: the product heats the card
  return {.copy = copy, .product = product_ceiling(backend, operands), .operands = operands};
}

Work::Work(const DeviceRoof& roof, double bytes_, double flops_)
    : bytes(bytes_), flops(flops_), floor_seconds(std::max(bytes_ / roof.copy, flops_ / roof.product)) {}

Work& Work::operator+=(const Work& other) {
  bytes += other.bytes;
  flops += other.flops;
  floor_seconds += other.floor_seconds;
  return *this;
}

void add_work(nlohmann::ordered_json& out, const Work& work, double seconds, const DeviceRoof& roof) {
  out.update({{"bytes", work.bytes},
              {"flops", work.flops},
              {"bytes_per_second", work.bytes / seconds},
              {"flops_per_second", work.flops / seconds},
              {"percent_of_copy_bandwidth", 100 * work.bytes / seconds / roof.copy},
              {"percent_of_product_ceiling", 100 * work.flops / seconds / roof.product},
              {"percent_of_roof", 100 * work.floor_seconds / seconds}});
}

std::string work_text(const Work& work, double seconds, const DeviceRoof& roof) {
  const double moving = work.bytes / roof.copy, computing = work.flops / roof.product;
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << "bytes    " << work.bytes * 1e-9 << " GB, "
       << work.bytes / seconds * 1e-9 << " GB/s: " << 100 * moving / seconds << "% of the "
       << roof.copy * 1e-9 << " GB/s of a copy\nFLOPs    " << work.flops * 1e-9 << " GFLOP, "
       << work.flops / seconds * 1e-12 << " TFLOP/s: " << 100 * computing / seconds << "% of the "
       << roof.product * 1e-12 << " TFLOP/s of a large dense " << name_of(roof.operands)
       << " product of ours\nroof     " << 1e3 * work.floor_seconds << " ms, "
       << 100 * work.floor_seconds / seconds << "% of the time, mostly "
       << (moving > computing ? "memory" : "arithmetic") << '\n';
  return text.str();
}

}  // namespace moge::cli
