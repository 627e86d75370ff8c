#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "io/hf_checkpoint.h"

namespace moge::io {
namespace {

namespace fs = std::filesystem;

/// Consecutive tensors, as many as fit in a shard, at least one.
std::vector<std::vector<TensorSpec>> split_into_shards(std::vector<TensorSpec> tensors, int64_t max_bytes) {
  std::vector<std::vector<TensorSpec>> shards(1);
  int64_t bytes = 0;
  for (TensorSpec& spec : tensors) {
    if (!shards.back().empty() && bytes + spec.bytes() > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += spec.bytes();
    shards.back().push_back(std::move(spec));
  }
  return shards;
}

/// transformers' names: model.safetensors, or model-00001-of-00004.safetensors.
std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  std::ostringstream name;
  name << std::setfill('0') << "model-" << std::setw(5) << index + 1 << "-of-" << std::setw(5) << count
       << ".safetensors";
  return name.str();
}

}  // namespace

struct CheckpointWriter::Shard {
  Shard(const fs::path& path, const std::vector<TensorSpec>& specs) : file(path), writer(file, specs) {
    for (const TensorSpec& spec : specs) bytes += spec.bytes();
  }
  FileWriter file;
  SafetensorsWriter writer;
  int64_t bytes = 0;
};

CheckpointWriter::CheckpointWriter(const fs::path& dir, const spec::ModelConfig& config,
                                   std::vector<TensorSpec> tensors, CheckpointOptions options)
    : directory_(dir, options.existing) {
  const auto plan = split_into_shards(std::move(tensors), options.max_shard_bytes);
  nlohmann::ordered_json weight_map;
  int64_t total_bytes = 0;
  for (size_t i = 0; i < plan.size(); ++i) {
    const std::string name = shard_name(i, plan.size());
    shards_.push_back(std::make_unique<Shard>(path() / name, plan[i]));
    total_bytes += shards_.back()->bytes;
    for (const TensorSpec& spec : plan[i]) {
      check<FileError>(shard_of_.emplace(spec.name, shards_.back().get()).second, "tensor '", spec.name,
                       "' occurs twice");
      weight_map[spec.name] = name;
    }
  }
  if (plan.size() > 1) {
    const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes}}},
                                          {"weight_map", weight_map}};
    atomic_write_file(path() / "model.safetensors.index.json", index.dump(2) + "\n");
  }
  atomic_write_file(path() / "config.json", config.to_json());
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::write(const std::string& name, const Tensor& source, ThreadPool* pool) {
  const auto it = shard_of_.find(name);
  dcheck(it != shard_of_.end(), "tensor '", name, "' was not announced");
  Shard& shard = *it->second;
  shard.writer.write(name, source, pool);
  if (!shard.writer.complete()) return;
  shard.writer.finish();
  shard.file.close();
}

void CheckpointWriter::copy_file(const fs::path& file) {
  const MappedFile source(file);
  FileWriter copy(path() / file.filename());
  copy.write(source.bytes());
  copy.close();
}

void CheckpointWriter::finish() {
  for (const auto& shard : shards_)
    dcheck(shard->writer.complete(), "a checkpoint's tensors were not all written: ", path().string());
  directory_.commit();
}

}  // namespace moge::io
