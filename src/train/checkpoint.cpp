#include "train/checkpoint.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/checksum.h"
#include "core/files.h"
#include "core/json.h"
#include "io/copy_convert.h"

namespace moge::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kStateFile = "trainer.json";
constexpr const char* kPrefix = "step-";

void check_finite(const model::Weights& weights) {
  for (const model::Parameter& p : model::parameters(weights)) {
    const std::optional<int64_t> bad = io::find_nonfinite(p.tensor);
    check(!bad, p.name, "[", bad.value_or(0), "] is not finite: training diverged; nothing was written");
  }
}

/// Opens a checkpoint directory with config, weights and tokenizer written; the caller finishes it.
std::unique_ptr<io::CheckpointWriter> write_model(TrainStep& step, const fs::path& dir,
                                                  const fs::path& tokenizer) {
  check_finite(step.model().weights);
  spec::ModelConfig config = step.model().config;
  const DType dtype = step.model().weights.embed_tokens.dtype;
  config.torch_dtype = dtype;
  auto writer = std::make_unique<io::CheckpointWriter>(
      dir, config, model::checkpoint_tensors(step.model().weights, config, dtype),
      io::CheckpointOptions{.existing = AtomicDirectory::Existing::kReplace});
  model::write_weights(step.context(), *writer, step.model().weights, config);
  for (const fs::directory_entry& file : fs::directory_iterator(tokenizer)) {
    const std::string name = file.path().filename().string();
    if (file.is_regular_file() && name != "config.json" && !name.ends_with(".safetensors"))
      writer->copy_file(file);
  }
  return writer;
}

}  // namespace

fs::path checkpoint_path(const fs::path& output, int64_t step) {
  std::string digits = str(step);
  digits.insert(0, digits.size() < 8 ? 8 - digits.size() : 0, '0');
  return output / (kPrefix + digits);
}

std::vector<fs::path> checkpoints(const fs::path& output) {
  std::vector<fs::path> all;
  if (!fs::is_directory(output)) return all;
  for (const fs::directory_entry& entry : fs::directory_iterator(output))
    if (entry.path().filename().string().starts_with(kPrefix) && fs::exists(entry.path() / kStateFile))
      all.push_back(entry.path());
  std::sort(all.begin(), all.end());
  return all;
}

std::optional<fs::path> latest_checkpoint(const fs::path& output) {
  const std::vector<fs::path> all = checkpoints(output);
  return all.empty() ? std::nullopt : std::optional(all.back());
}

void remove_old_checkpoints(const fs::path& output, int64_t keep) {
  const std::vector<fs::path> all = checkpoints(output);
  // Never committed: it takes along what was moved there, and first what a removal that was killed left.
  const AtomicDirectory removed(output / "removed", AtomicDirectory::Existing::kReplace);
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i)
    fs::rename(all[i], removed.path() / all[i].filename());
}

void save_model(TrainStep& step, const fs::path& dir, const fs::path& tokenizer) {
  write_model(step, dir, tokenizer)->finish();
}

void save_checkpoint(TrainStep& step, const fs::path& dir, const TrainerState& state,
                     const fs::path& tokenizer) {
  const auto writer = write_model(step, dir, tokenizer);
  std::vector<io::TensorSpec> specs;
  for (const auto& [name, tensor] : step.optimizer().state())
    specs.push_back({name, DType::kF32, tensor.shape});
  FileWriter file(writer->path() / kOptimizerFile);
  io::SafetensorsWriter optimizer(file, specs);
  for (const auto& [name, tensor] : step.optimizer().state())
    optimizer.write(name, tensor, step.context().pool);
  optimizer.finish();
  file.close();
  const nlohmann::json json = {
      {"step", state.step},
      {"num_updates", step.optimizer().num_updates()},
      {"guard",
       {{"mean", state.guard.mean}, {"variance", state.guard.variance}, {"count", state.guard.count}}},
      {"num_refused", state.num_refused},
      {"config", state.config_text},
      {"data_hash", state.data_hash}};
  atomic_write_file(writer->path() / kStateFile, json.dump(2) + "\n");
  writer->finish();
}

TrainerState load_checkpoint(TrainStep& step, const fs::path& dir) {
  io::CheckpointReader reader(dir);
  reader.verify(*step.context().pool);
  model::load_weights(step.context(), reader, step.model().config, step.model().weights);

  io::SafetensorsFile file(dir / kOptimizerFile);
  const auto slots = step.optimizer().state();
  check<FileError>(file.tensors().size() == slots.size(), file.path().string(), ": expected ", slots.size(),
                   " tensors, got ", file.tensors().size());
  for (const auto& [name, tensor] : slots) {
    const io::TensorInfo* info = file.find(name);
    check<FileError>(info && info->shape == tensor.shape && info->dtype == DType::kF32, file.path().string(),
                     ": expected ", name, " as ", tensor.str());
    file.verify(*info);
    io::copy_convert(tensor, file.tensor(*info), step.context().pool);
  }

  const fs::path path = dir / kStateFile;
  const nlohmann::json json = parse_json(read_text_file(path), path.string());
  JsonObject object(json, path.string());
  TrainerState state;
  state.step = object.require(object.integer("step", 0), "step");
  step.optimizer().set_num_updates(object.require(object.integer("num_updates", 0), "num_updates"));
  // Absent in checkpoints of before it was kept.
  state.num_refused = object.integer("num_refused", 0).value_or(0);
  state.config_text = object.require(object.text("config"), "config");
  state.data_hash = object.require(object.text("data_hash"), "data_hash");
  const nlohmann::json* guard_json = object.find("guard");
  if (!guard_json) object.throw_missing("guard");
  JsonObject guard(*guard_json, path.string() + ": guard");
  state.guard = {.mean = guard.require(guard.number("mean"), "mean"),
                 .variance = guard.require(guard.number("variance"), "variance"),
                 .count = guard.require(guard.integer("count", 0), "count")};
  return state;
}

std::string state_hash(TrainStep& step) {
  Checksum checksum;
  const auto add = [&](const Tensor& t) {
    checksum.update({static_cast<const std::byte*>(t.data), static_cast<size_t>(t.bytes())});
  };
  for (const model::Parameter& p : model::parameters(step.model().weights)) add(p.tensor);
  for (const auto& [name, tensor] : step.optimizer().state()) add(tensor);
  return checksum.hex();
}

}  // namespace moge::train
