// What a machine can do at best: the ceilings that speeds are reported against and that the simulator starts
// from. Loaded from configs/hardware/NAME.toml, where each figure says where it comes from.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace moge::spec {

struct Figure {
  double value = 0;
  std::string source;  ///< a document, or the program and the circumstances of a measurement
  std::string status;  ///< "datasheet", "measured", "estimated", "disputed", "prior", "fitted" or "quoted"
};

/// One level of a machine's interconnect. Levels are listed from the inside out, each joins more devices than
/// the one before: the two chips of a card, the cards of a socket, the nodes of a cluster.
struct LinkLevel {
  enum class Kind {
    kMesh,    ///< every pair of devices has a link of its own: two devices share one link
    kSwitch,  ///< every unit has one link to a switch, through which it reaches all the others
  };
  std::string name;
  Kind kind = Kind::kSwitch;
  int64_t devices = 0;       ///< that this level joins, a multiple of the level's below; 0: any number
  int64_t unit_devices = 1;  ///< neighbours that share one end of a link (two chips on one card's PCIe slot)
  Figure bandwidth;          ///< bytes/s one way: of a pair's link (mesh), of a unit's link (switch)
};

/// How matmuls are cut into pieces, for tile and wave quantisation.
struct MatmulUnits {
  int64_t units = 0;     ///< cores that each compute one tile at a time
  int64_t row_step = 1;  ///< rows are padded to a multiple of it
  int64_t tile_rows = 128;
  int64_t tile_cols = 128;
  std::string source;
  std::string status;
};

struct Hardware {
  std::string name;
  int64_t devices_per_card = 1;  ///< what is bought and counted as one: a card of two chips has 2
  Figure memory_bytes;
  Figure memory_bandwidth;             ///< bytes/s, reading
  std::map<DType, Figure> peak_flops;  ///< FLOP/s (integers: operations/s) of dense matmuls, by operand type
  /// FLOP/s that large matmuls were measured to sustain, for types where that is known; others: unknown.
  std::map<DType, Figure> sustained_flops;
  std::vector<LinkLevel> interconnect;  ///< empty: a machine of one device
  std::optional<MatmulUnits> matmul;

  /// FLOP/s. Throws UsageError for a type without a figure, naming those that have one.
  double peak(DType dtype) const;
  /// Of bf16, or of f16 where there is no bf16.
  double peak_16bit() const { return peak(peak_flops.contains(DType::kBF16) ? DType::kBF16 : DType::kF16); }
};

/// Throws FileError: missing or unknown keys, values that are not positive, an unknown status or dtype,
/// levels of the interconnect that do not contain each other.
Hardware load_hardware(const std::filesystem::path& file);

}  // namespace moge::spec
