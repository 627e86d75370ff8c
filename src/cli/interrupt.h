// Ctrl-C as a request: while one of these lives, SIGINT and SIGTERM set a flag instead of ending the process.
#pragma once
#include <atomic>
#include <csignal>

namespace moge::cli {

/// At most one at a time. A second signal ends the process as usual.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  const std::atomic<bool>& requested() const;

 private:
  struct sigaction old_int_ {};
  struct sigaction old_term_ {};
};

}  // namespace moge::cli
