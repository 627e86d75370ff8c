#include "ops/cuda/plain_kernel.h"

#include <mutex>
#include <set>

#include "core/log.h"

namespace moge::ops::cuda {

void warn_of_plain_kernel(const char* op, const Refusal& fast) {
  if (fast.empty()) return;
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::string reason = str(op, ": ", fast);
  const std::lock_guard lock(mutex);
  if (said.insert(reason).second) log_warning(reason, "; a plain kernel takes it, which is much slower");
}

}  // namespace moge::ops::cuda
