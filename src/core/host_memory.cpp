#include "core/host_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace moge {

namespace {

/// The number that a file consists of; nothing for "max" or without the file.
std::optional<int64_t> number_in(const std::string& path) {
  std::ifstream in(path);
  int64_t value = 0;
  return in >> value ? std::optional(value) : std::nullopt;
}

/// The number behind a key of a file of lines "key number".
std::optional<int64_t> number_of(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string name; in >> name; in.ignore(INT64_MAX, '\n')) {
    int64_t value = 0;
    if (name == key && in >> value) return value;
  }
  return std::nullopt;
}

/// Control groups as a container sees its own.
struct GroupFiles {
  const char *limit, *usage, *stat, *cache;
};
constexpr GroupFiles kGroups[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "file"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
     "/sys/fs/cgroup/memory/memory.stat", "total_cache"}};

int64_t group_free_bytes(const GroupFiles& files) {
  const std::optional<int64_t> limit = number_in(files.limit), usage = number_in(files.usage);
  if (!limit || !usage) return INT64_MAX;
  return std::max<int64_t>(0, *limit - *usage + number_of(files.stat, files.cache).value_or(0));
}

/// What RLIMIT_AS leaves.
int64_t address_space_left() {
  rlimit limit{};
  const std::optional<int64_t> pages = number_in("/proc/self/statm");
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || !pages) return INT64_MAX;
  return std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - *pages * sysconf(_SC_PAGESIZE));
}

}  // namespace

int64_t host_free_bytes() {
  const std::optional<int64_t> available_kib = number_of("/proc/meminfo", "MemAvailable:");
  int64_t free = std::min(available_kib ? *available_kib << 10 : INT64_MAX, address_space_left());
  for (const GroupFiles& files : kGroups) free = std::min(free, group_free_bytes(files));
  return free;
}

}  // namespace moge
