// What a machine can do at best: the ceilings that speeds are reported against and that the simulator starts
// from. Loaded from configs/hardware/NAME.toml, where each figure says where it comes from.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "core/dtype.h"

namespace moge::spec {

struct Figure {
  double value = 0;
  std::string source;  ///< a document, or the program and the circumstances of a measurement
  std::string status;  ///< "datasheet", "measured", "estimated" or "disputed"
};

struct Hardware {
  std::string name;
  Figure memory_bytes;
  Figure memory_bandwidth;             ///< bytes/s, reading
  std::map<DType, Figure> peak_flops;  ///< FLOP/s (integers: operations/s) of dense matmuls, by operand type

  /// FLOP/s. Throws UsageError for a type without a figure, naming those that have one.
  double peak(DType dtype) const;
};

/// Throws FileError: missing or unknown keys, values that are not positive, an unknown status or dtype.
Hardware load_hardware(const std::filesystem::path& file);

}  // namespace moge::spec
