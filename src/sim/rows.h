// Files of measured steps, what `moge sim calibrate` fits to (configs/sim/rows.toml).
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "sim/calibrate.h"
#include "sim/model_loader.h"

namespace moge::sim {

struct MachineRows {
  std::string hardware;  ///< the name of its file under configs/hardware
  /// Observation::devices counts cards: multiply by Hardware::devices_per_card.
  std::vector<Observation> rows;
};

/// TOML (or by its extension JSON) with [[row]] tables: id, hardware, model, stage ("decode" or "prefill"),
/// cards, batch, context or input, latency_ms; and if they are not w8a8, fp16, none, auto: weights, kv,
/// mtp ("K,ACCEPT"), plan (a file). Machines in the order of their first rows. Throws FileError: missing,
/// unknown or wrong keys, two rows with the same id.
std::vector<MachineRows> load_rows(const std::filesystem::path& file, const ModelLoader& load_model);

}  // namespace moge::sim
