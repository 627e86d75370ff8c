// Checkpoints as Hugging Face directories: config.json, and model.safetensors or shards of it with
// model.safetensors.index.json. The reader lets nothing pass unmatched; the writer's directory appears whole
// or not at all.
#pragma once
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "core/tensor.h"
#include "core/thread_pool.h"
#include "io/safetensors.h"
#include "io/safetensors_writer.h"
#include "spec/model_config.h"

namespace moge::io {

class CheckpointReader {
 public:
  /// Maps all shards and checks the index against them. Throws FileError.
  explicit CheckpointReader(const std::filesystem::path& dir);

  const std::filesystem::path& dir() const { return dir_; }
  std::vector<std::string> names() const;
  bool has(const std::string& name) const { return places_.contains(name); }
  /// The mapped tensor, read-only, contiguous, in the file's dtype; valid as long as this object. Throws
  /// FileError for a missing tensor (naming the nearest) and for another shape.
  Tensor take(const std::string& name, const Shape& expected);
  /// Throws FileError unless every tensor was taken.
  void finish() const;

  /// Compares all checksums. Returns how many tensors had one (0 in files of other writers). Throws FileError
  /// naming the first corrupt tensor.
  int64_t verify(ThreadPool& pool) const;
  /// Throws FileError naming the first tensor with a NaN or infinity, and where in it.
  void check_finite(ThreadPool& pool);
  /// Both for these tensors alone, which exist: a large checkpoint is checked where it is read, not in passes
  /// of its own.
  void check(std::span<const std::string> names, ThreadPool& pool);
  /// Has the system read these tensors from disk ahead of their use; missing ones are passed over.
  void will_need(std::span<const std::string> names) const;

 private:
  struct Place {
    SafetensorsFile* file;
    const TensorInfo* info;
  };
  void read_index();
  void add_file(const std::string& file_name);
  std::vector<Place> places() const;
  static void check_finite(const std::vector<Place>& places, ThreadPool& pool);

  std::filesystem::path dir_;
  std::deque<SafetensorsFile> files_;
  std::map<std::string, Place> places_;
  std::set<std::string> taken_;
};

struct CheckpointOptions {
  int64_t max_shard_bytes = int64_t{5} << 30;
  AtomicDirectory::Existing existing = AtomicDirectory::Existing::kRefuse;
};

class CheckpointWriter {
 public:
  /// The tensors that the checkpoint will have, in the order in which they fill the shards.
  CheckpointWriter(const std::filesystem::path& dir, const spec::ModelConfig& config,
                   std::vector<TensorSpec> tensors, CheckpointOptions options = {});
  ~CheckpointWriter();

  /// Stores one tensor; `source` may be strided and of another float dtype. Any order, each once.
  void write(const std::string& name, const Tensor& source, ThreadPool* pool = nullptr);
  /// Copies a file (a tokenizer's, a chat template) under its own name.
  void copy_file(const std::filesystem::path& file);
  /// Where files of other kinds may be put until finish().
  const std::filesystem::path& path() const { return directory_.path(); }
  /// Completes the files and gives the directory its final name.
  void finish();

 private:
  struct Shard;
  AtomicDirectory directory_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::map<std::string, Shard*> shard_of_;
};

}  // namespace moge::io
