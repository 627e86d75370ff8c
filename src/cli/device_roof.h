// What a GPU reaches in the process that measures a model, and a model's work beside it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/backend.h"
#include "core/dtype.h"

namespace moge::cli {

/// FLOP/s of a large dense product of ours, 8192 x 8192 x 8192 of `operands`, at the clocks that a long run
/// holds. Takes a quarter of a second, and up to 0.8 GiB of the GPU meanwhile.
double product_ceiling(Backend& backend, DType operands);

/// The two rates that a pass is compared with.
struct DeviceRoof {
  double copy = 0;     ///< bytes read and written per second (Backend::copy_bandwidth)
  double product = 0;  ///< product_ceiling()
  DType operands = DType::kBF16;
};
DeviceRoof measure_roof(Backend& backend, DType operands);

/// What passes have to move and to compute at least (spec/cost.h).
struct Work {
  double bytes = 0;
  double flops = 0;
  double floor_seconds = 0;  ///< of each pass the longer of moving and computing, summed over the passes

  /// One pass.
  Work(const DeviceRoof& roof, double bytes, double flops);
  Work() = default;
  Work& operator+=(const Work& other);
};

/// Adds bytes, flops, their rates over `seconds`, the percents of both measured rates, and percent_of_roof:
/// of `seconds`, those that the roof allows.
void add_work(nlohmann::ordered_json& out, const Work& work, double seconds, const DeviceRoof& roof);
/// The same as three lines of a table.
std::string work_text(const Work& work, double seconds, const DeviceRoof& roof);

}  // namespace moge::cli
