// Which tile of a product's kernel was fastest, measured on one kind of device: the table that `moge tune`
// writes and the kernels read. A tile moves no bit of a result, so any table is correct.
//
// A text file, a line per measurement: dtype, groups, "gathered" or "contiguous", N, K, rows of c, tile
// (features x rows), microseconds. A # begins a comment.
//   i8 64 gathered 2688 5120 32768 256x256 981.4
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace moge::ops {

struct TileShape {
  int features, rows;
  bool operator==(const TileShape&) const = default;
};

/// What a product's speed depends on (ops/quant_matmul.h), but for the number of rows.
struct TileProblem {
  DType dtype;
  int64_t groups;  ///< 1: dense
  bool gathered;   ///< has row_ids
  int64_t n, k;
  bool operator==(const TileProblem&) const = default;
};

struct TileTiming {
  TileProblem problem;
  int64_t rows;  ///< of c
  TileShape tile;
  double microseconds;
};

class TileProfile {
 public:
  TileProfile() = default;
  explicit TileProfile(std::vector<TileTiming> timings) : timings_(std::move(timings)) {}
  /// Throws FileError naming `origin` and the line.
  static TileProfile parse(std::string_view text, const std::string& origin);
  std::string text() const;

  /// The tile that was fastest at the measured number of rows nearest to `rows` (in ratio), if any was
  /// measured.
  std::optional<TileShape> find(const TileProblem& problem, int64_t rows) const;
  /// Takes `other`'s measurements, in place of those of the same problems.
  void replace_by(const TileProfile& other);
  const std::vector<TileTiming>& timings() const { return timings_; }

 private:
  std::vector<TileTiming> timings_;
};

/// Of a device by its name: tiles-nvidia-h200.txt in MOGE_CACHE, or else in moge/ of XDG_CACHE_HOME or
/// ~/.cache. Empty when none of these is set.
std::filesystem::path tile_profile_path(const std::string& device);
/// What `moge tune` wrote for the device, or an empty profile. Throws FileError for a broken file.
TileProfile load_tile_profile(const std::string& device);
/// Replaces the file at tile_profile_path(device). FileError, with the old file as it was, if it cannot be
/// written or load_tile_profile() would refuse it.
void save_tile_profile(const std::string& device, const TileProfile& profile);

}  // namespace moge::ops
