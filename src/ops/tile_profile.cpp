#include "ops/tile_profile.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "core/error.h"
#include "core/files.h"

namespace moge::ops {

namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr int64_t kMaxSize = int64_t{1} << 40;  // of every number in a line
constexpr const char* kGathered = "gathered";
constexpr const char* kContiguous = "contiguous";

std::optional<DType> product_dtype(const std::string& name) {
  for (const DType dtype : {DType::kI8, DType::kFP8E4M3, DType::kBF16})
    if (name == name_of(dtype)) return dtype;
  return {};
}

std::optional<TileTiming> parse_line(const std::string& line) {
  std::istringstream in(line);
  std::string dtype, rows_are, surplus;
  TileTiming t{};
  char x = 0;
  in >> dtype >> t.problem.groups >> rows_are >> t.problem.n >> t.problem.k >> t.rows >> t.tile.features >>
      x >> t.tile.rows >> t.microseconds;
  if (!in || in >> surplus || x != 'x' || (rows_are != kGathered && rows_are != kContiguous)) return {};
  const auto sizes = {t.problem.groups,         t.problem.n,         t.problem.k, t.rows,
                      int64_t{t.tile.features}, int64_t{t.tile.rows}};
  if (!std::ranges::all_of(sizes, [](int64_t size) { return size > 0 && size < kMaxSize; })) return {};
  const std::optional<DType> type = product_dtype(dtype);
  if (!type || !(t.microseconds > 0)) return {};
  t.problem.dtype = *type;
  t.problem.gathered = rows_are == kGathered;
  return t;
}

}  // namespace

TileProfile TileProfile::parse(std::string_view text, const std::string& origin) {
  TileProfile profile;
  std::istringstream in{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    line.erase(std::min(line.find('#'), line.size()));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::optional<TileTiming> timing = parse_line(line);
    check<FileError>(timing.has_value(), origin, ", line ", number, ": expected \"dtype groups ", kGathered,
                     "|", kContiguous, " N K rows FxR microseconds\", got \"", line.substr(0, 100), "\"");
    profile.timings_.push_back(*timing);
  }
  return profile;
}

std::string TileProfile::text() const {
  std::ostringstream out;
  for (const TileTiming& t : timings_)
    out << name_of(t.problem.dtype) << ' ' << t.problem.groups << ' '
        << (t.problem.gathered ? kGathered : kContiguous) << ' ' << t.problem.n << ' ' << t.problem.k << ' '
        << t.rows << ' ' << t.tile.features << 'x' << t.tile.rows << ' ' << t.microseconds << '\n';
  return out.str();
}

std::optional<TileShape> TileProfile::find(const TileProblem& problem, int64_t rows) const {
  const TileTiming* best = nullptr;
  const auto distance = [&](const TileTiming& t) {
    return std::abs(std::log(static_cast<double>(t.rows) / static_cast<double>(std::max<int64_t>(rows, 1))));
  };
  for (const TileTiming& t : timings_)
    if (t.problem == problem && (!best || distance(t) < distance(*best) ||
                                 (distance(t) == distance(*best) && t.microseconds < best->microseconds)))
      best = &t;
  return best ? std::optional(best->tile) : std::nullopt;
}

void TileProfile::replace_by(const TileProfile& other) {
  std::erase_if(timings_, [&](const TileTiming& mine) {
    return std::ranges::any_of(other.timings_,
                               [&](const TileTiming& theirs) { return theirs.problem == mine.problem; });
  });
  timings_.insert(timings_.end(), other.timings_.begin(), other.timings_.end());
}

fs::path tile_profile_path(const std::string& device) {
  const auto folder = [](const char* variable) -> fs::path {
    const char* value = std::getenv(variable);
    return value ? value : "";
  };
  fs::path cache = folder("MOGE_CACHE");
  if (cache.empty() && !folder("XDG_CACHE_HOME").empty()) cache = folder("XDG_CACHE_HOME") / "moge";
  if (cache.empty() && !folder("HOME").empty()) cache = folder("HOME") / ".cache" / "moge";
  if (cache.empty()) return {};
  std::string name = "tiles-";
  for (const char c : device)
    name += std::isalnum(static_cast<unsigned char>(c)) ? static_cast<char>(std::tolower(c)) : '-';
  return cache / (name + ".txt");
}

TileProfile load_tile_profile(const std::string& device) {
  const fs::path path = tile_profile_path(device);
  std::error_code ignored;
  if (path.empty() || !fs::exists(path, ignored)) return {};
  return TileProfile::parse(read_text_file(path, kMaxFileBytes), path.string());
}

void save_tile_profile(const std::string& device, const TileProfile& profile) {
  const fs::path path = tile_profile_path(device);
  const std::string text = str("# ", device, ", by moge tune (src/ops/tile_profile.h)\n", profile.text());
  TileProfile::parse(text, path.string());
  atomic_write_file(path, text);
}

}  // namespace moge::ops
