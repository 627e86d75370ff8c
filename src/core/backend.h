// A device behind one interface: memory, copies, one ordered stream of work, graphs and timers. The CPU needs
// none of it. The GPU's lies in a shared object that is opened when a device is found (docs/design.md,
// "Devices"), so that no process without one pays for its libraries.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "core/error.h"

namespace moge {

/// The device or its driver failed, or there is none that we can use.
struct DeviceError : Error {
  explicit DeviceError(const std::string& what) : Error(what, ExitCode::kEngine) {}
};

struct DeviceInfo {
  std::string name;            ///< "NVIDIA H200"
  std::string capability;      ///< "9.0"
  std::string driver_version;  ///< the newest CUDA that the driver supports, "13.0"
  int64_t memory_bytes = 0;
  int64_t l2_bytes = 0;
  int num_sms = 0;
};

/// Recorded work of a stream that can be launched again as a whole.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch() = 0;
};

/// A point in the stream whose time is taken; recorded between begin_capture() and end_capture(), at each
/// launch of the graph.
class Event {
 public:
  virtual ~Event() = default;
  virtual void record() = 0;
  /// Returns when the point is reached; at once when it was never recorded.
  virtual void wait() = 0;
  /// Waits for both points. Seconds from `start` to this one.
  virtual double seconds_since(Event& start) = 0;
};

/// Everything but allocation is asynchronous, in the order of the calls. Failures of earlier work may surface
/// at any later call as DeviceError.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual int64_t free_bytes() const = 0;

  /// Throws OutOfMemoryError: what it was for, how much was asked for, how much is free.
  virtual void* allocate(int64_t bytes, const std::string& purpose) = 0;
  virtual void deallocate(void* memory) noexcept = 0;
  /// Host memory that the device reads and writes directly.
  virtual void* allocate_pinned(int64_t bytes, const std::string& purpose) = 0;
  virtual void deallocate_pinned(void* memory) noexcept = 0;

  virtual void fill_bytes(void* device, uint8_t value, int64_t bytes) = 0;
  virtual void copy_to_device(void* device, const void* host, int64_t bytes) = 0;
  virtual void copy_to_host(void* host, const void* device, int64_t bytes) = 0;
  virtual void copy_on_device(void* to, const void* from, int64_t bytes) = 0;
  virtual void synchronize(const char* where) = 0;

  /// Bytes read and written per second by a copying kernel over memory that no cache holds (1 GiB twice, for
  /// as long as it takes): the ceiling that bandwidth-bound kernels are compared with.
  virtual double copy_bandwidth() = 0;

  /// What ops launch on: a cudaStream_t.
  virtual void* stream() const = 0;
  /// Between the two calls work is recorded, not run; nothing may allocate or wait.
  virtual void begin_capture() = 0;
  virtual bool recording() const = 0;  ///< between the two
  virtual std::unique_ptr<Graph> end_capture() = 0;
  virtual std::unique_ptr<Event> make_event() = 0;
};

/// Why no GPU can be used, or "" (no device file, no plugin beside the program, driver too old, not a
/// Hopper).
std::string cuda_refusal(int index = 0);
/// The GPU of this index; opens the plugin and adds its kernels to the op tables at first use. Throws
/// DeviceError with cuda_refusal()'s reason.
Backend& cuda_backend(int index = 0);

}  // namespace moge
