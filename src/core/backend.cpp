#include "core/backend.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>

namespace moge {

namespace {

namespace fs = std::filesystem;

/// What libmoge_cuda.so exports. Exceptions do not cross: a refusal comes back as text.
using OpenFunction = Backend* (*)(int index, std::string* refusal);

constexpr const char* kDeviceFile = "/dev/nvidiactl";
constexpr const char* kPlugin = "libmoge_cuda.so";

/// lib/moge beside the program's bin/, in the build tree as in the installed one; test programs lie elsewhere
/// in the build tree and find it through MOGE_CUDA_PLUGIN.
fs::path plugin_path() {
  if (const char* env = std::getenv("MOGE_CUDA_PLUGIN")) return env;
  std::error_code ignored;
  const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
  return self.parent_path().parent_path() / "lib" / "moge" / kPlugin;
}

struct Opened {
  Backend* backend = nullptr;
  std::string refusal;
};

Opened open_cuda(int index) {
  if (access(kDeviceFile, F_OK) != 0) return {nullptr, str("no NVIDIA device here (no ", kDeviceFile, ")")};
  const fs::path path = plugin_path();
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    return {nullptr, str("the GPU plugin is missing: expected ", path.string(),
                         " (built by the preset cuda-release; MOGE_CUDA_PLUGIN names another)")};
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (!library) return {nullptr, str("cannot open the GPU plugin: ", dlerror())};
  const auto open = reinterpret_cast<OpenFunction>(dlsym(library, "moge_cuda_open"));
  if (!open) return {nullptr, str(path.string(), ": not a moge plugin (no moge_cuda_open)")};
  Opened opened;
  opened.backend = open(index, &opened.refusal);
  return opened;
}

const Opened& opened(int index) {
  static std::mutex mutex;
  static Opened result;
  static int result_index = -1;
  const std::lock_guard lock(mutex);
  if (result_index < 0) {
    result = open_cuda(index);
    result_index = index;
  }
  check<UsageError>(index == result_index, "GPU ", index, ": this process already uses GPU ", result_index);
  return result;
}

}  // namespace

std::string cuda_refusal(int index) {
  return opened(index).refusal;
}

Backend& cuda_backend(int index) {
  const Opened& o = opened(index);
  check<DeviceError>(o.backend != nullptr, o.refusal);
  return *o.backend;
}

}  // namespace moge
