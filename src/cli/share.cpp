#include "cli/share.h"

#include <system_error>

namespace moge::cli {

std::filesystem::path share_folder() {
  std::error_code no_proc;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", no_proc);
  return program.parent_path().parent_path() / "share/moge";
}

}  // namespace moge::cli
