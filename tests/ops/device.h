// Op arguments on the GPU: each tensor of a CPU Args gets a twin on the device, tensors that share memory
// (slices, in-place operands) share it there too.
#pragma once
#include <functional>
#include <vector>

#include "core/buffer.h"

namespace moge::test {

/// The GPU, or null; says on stderr, once, why there is none. The first call must precede the listing of
/// implementations.
Backend* device();

/// Blocks of host memory and their twins.
class DeviceMemory {
 public:
  explicit DeviceMemory(Backend& backend) : backend_(backend) {}
  /// Memory that the tensors need. Before allocate().
  void cover(const Tensor& t);
  void allocate();
  /// The same view of the twin.
  Tensor twin(const Tensor& t) const;
  void upload();    ///< all blocks, asynchronous
  void download();  ///< all blocks; waits
  /// What upload() brought last, again, from a copy on the device that the first call makes.
  void restore();
  int64_t bytes() const;

 private:
  struct Block {
    std::byte *begin, *end;
    Buffer memory, pristine;
  };
  Backend& backend_;
  std::vector<Block> blocks_;
};

template <class Args>
class Mirror {
 public:
  /// Uploads.
  Mirror(Backend& backend, const Args& host) : memory_(backend), args_(host) {
    for_each_tensor(args_, [&](const Tensor& t) { memory_.cover(t); });
    memory_.allocate();
    for_each_tensor(args_, [&](Tensor& t) { t = memory_.twin(t); });
    memory_.upload();
  }
  const Args& args() const { return args_; }
  DeviceMemory& memory() { return memory_; }

 private:
  DeviceMemory memory_;
  Args args_;
};

/// Median seconds of one of the `count` runs that `graph` consists of. `before` each launch comes `prepare`,
/// untimed.
double median_graph_seconds(Backend& backend, const std::function<void()>& prepare, Graph& graph, int count);

}  // namespace moge::test
