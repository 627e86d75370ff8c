#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/nearest.h"
#include "io/copy_convert.h"
#include "io/hf_checkpoint.h"

namespace moge::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = int64_t{256} << 20;

/// Index `flat` of a contiguous tensor as "[i, j]".
std::string position(const Shape& shape, int64_t flat) {
  std::string text;
  for (int d = shape.ndim() - 1; d >= 0; --d) {
    text = str(flat % shape[d], d + 1 < shape.ndim() ? ", " : "", text);
    flat /= shape[d];
  }
  return "[" + text + "]";
}

/// Runs fn(i) for all i; if some throw, the exception of the lowest i is rethrown.
template <class Fn>
void for_each_index(ThreadPool& pool, size_t n, const Fn& fn) {
  std::vector<std::exception_ptr> errors(n);
  pool.run(static_cast<int64_t>(n), [&](int64_t i, int) {
    try {
      fn(static_cast<size_t>(i));
    } catch (...) {
      errors[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace

CheckpointReader::CheckpointReader(const fs::path& dir) : dir_(dir) {
  moge::check<FileError>(fs::is_directory(dir), dir.string(), ": expected a directory with ", kSingleFile,
                         " or ", kIndexFile);
  // A link that leads nowhere counts: opening it says so.
  const auto has = [&](const char* name) { return fs::exists(fs::symlink_status(dir / name)); };
  if (has(kIndexFile)) {
    read_index();
  } else {
    moge::check<FileError>(has(kSingleFile), dir.string(), ": has neither ", kSingleFile, " nor ",
                           kIndexFile);
    add_file(kSingleFile);
  }
}

void CheckpointReader::add_file(const std::string& file_name) {
  SafetensorsFile& file = files_.emplace_back(dir_ / file_name);
  for (const TensorInfo& info : file.tensors()) {
    const auto [it, is_new] = places_.emplace(info.name, Place{&file, &info});
    moge::check<FileError>(is_new, file.path().string(), ": tensor '", info.name, "' is also in ",
                           it->second.file->path().filename().string());
  }
}

void CheckpointReader::read_index() {
  const std::string source = (dir_ / kIndexFile).string();
  const nlohmann::json root = parse_json(read_text_file(source, kMaxIndexBytes), source);
  JsonObject index(root, source);
  const nlohmann::json* value = index.find("weight_map");
  if (value == nullptr) index.throw_missing("weight_map");
  JsonObject weight_map(*value, str(source, ": weight_map"));
  std::map<std::string, std::string> file_of;
  std::set<std::string> file_names;
  for (const auto& [name, file] : value->items()) {
    const std::string file_name = weight_map.require(weight_map.text(name), name);
    // A name with a directory in it could point anywhere.
    moge::check<FileError>(
        fs::path(file_name).filename() == file_name && file_name != "." && file_name != "..", source,
        ": tensor '", name, "' lies in ", json_excerpt(file), ": expected a plain file name");
    file_of[name] = file_name;
    file_names.insert(file_name);
  }
  for (const std::string& file_name : file_names) add_file(file_name);
  for (const auto& [name, file_name] : file_of) {
    const auto it = places_.find(name);
    moge::check<FileError>(it != places_.end() && it->second.file->path().filename() == file_name, source,
                           ": tensor '", name, "' is not in ", file_name);
  }
  for (const auto& [name, place] : places_)
    moge::check<FileError>(file_of.contains(name), place.file->path().string(), ": tensor '", name,
                           "' is not in ", kIndexFile);
}

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

Tensor CheckpointReader::take(const std::string& name, const Shape& expected) {
  const auto it = places_.find(name);
  if (it == places_.end())
    throw FileError(str(dir_.string(), ": tensor '", name, "' is missing", did_you_mean(name, names())));
  const auto& [file, info] = it->second;
  moge::check<FileError>(info->shape == expected, file->path().string(), ": tensor '", name,
                         "': expected shape ", expected, ", got ", info->shape);
  taken_.insert(name);
  return file->tensor(*info);
}

void CheckpointReader::finish() const {
  constexpr size_t kShown = 5;
  std::vector<std::string> unused;
  for (const auto& [name, place] : places_) {
    if (!taken_.contains(name)) unused.push_back(name);
  }
  std::string shown;
  for (size_t i = 0; i < std::min(kShown, unused.size()); ++i) shown += str(i ? ", " : "", unused[i]);
  moge::check<FileError>(unused.empty(), dir_.string(), ": ", unused.size(),
                         unused.size() == 1 ? " tensor" : " tensors",
                         " that the model does not have: ", shown, unused.size() > kShown ? ", ..." : "");
}

std::vector<CheckpointReader::Place> CheckpointReader::places() const {
  std::vector<Place> places;
  for (const auto& [name, place] : places_) places.push_back(place);
  return places;
}

int64_t CheckpointReader::verify(ThreadPool& pool) const {
  const std::vector<Place> all = places();
  std::vector<char> verified(all.size());
  for_each_index(pool, all.size(),
                 [&](size_t i) { verified[i] = all[i].file->verify(*all[i].info) ? 1 : 0; });
  return std::ranges::count(verified, 1);
}

void CheckpointReader::check_finite(ThreadPool& pool) {
  check_finite(places(), pool);
}

void CheckpointReader::check(std::span<const std::string> names, ThreadPool& pool) {
  std::vector<Place> some;
  for (const std::string& name : names) some.push_back(places_.at(name));
  for_each_index(pool, some.size(), [&](size_t i) { some[i].file->verify(*some[i].info); });
  check_finite(some, pool);
}

void CheckpointReader::will_need(std::span<const std::string> names) const {
  for (const std::string& name : names) {
    const auto it = places_.find(name);
    if (it != places_.end()) it->second.file->will_need(*it->second.info);
  }
}

void CheckpointReader::check_finite(const std::vector<Place>& all, ThreadPool& pool) {
  // In pieces, so that one large tensor keeps all threads busy.
  constexpr int64_t kPieceElements = int64_t{1} << 22;
  struct Piece {
    const Place* place;
    Tensor all;
    int64_t begin, end;
  };
  std::vector<Piece> pieces;  // made here: an unaligned tensor is copied, which threads must not do at once
  for (const Place& place : all) {
    const Tensor tensor = place.file->tensor(*place.info);
    const int64_t n = tensor.numel();
    for (int64_t begin = 0; begin < n; begin += kPieceElements)
      pieces.push_back({&place, tensor, begin, std::min(n, begin + kPieceElements)});
  }
  for_each_index(pool, pieces.size(), [&](size_t i) {
    const auto& [place, tensor, begin, end] = pieces[i];
    const std::optional<int64_t> bad = find_nonfinite(tensor.view({tensor.numel()}).slice(0, begin, end));
    moge::check<FileError>(!bad, place->file->path().string(), ": tensor '", place->info->name,
                           "' has a NaN or infinity at ", position(tensor.shape, begin + bad.value_or(0)));
  });
}

}  // namespace moge::io
