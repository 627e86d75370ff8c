#include "ops/device.h"

#include <algorithm>
#include <cstdio>

namespace moge::test {

Backend* device() {
  static Backend* const backend = [] {
    const std::string refusal = cuda_refusal();
    if (refusal.empty()) return &cuda_backend();
    std::fprintf(stderr, "CUDA implementations are not run: %s\n", refusal.c_str());
    return static_cast<Backend*>(nullptr);
  }();
  return backend;
}

namespace {

struct Extent {
  std::byte *begin, *end;
};
Extent extent(const Tensor& t) {
  auto* begin = static_cast<std::byte*>(t.data);
  if (t.numel() == 0 || t.layout != Layout::kStrided) return {begin, begin + t.bytes()};
  int64_t last = 0;
  for (int d = 0; d < t.shape.ndim(); ++d) last += (t.dim(d) - 1) * t.stride(d);
  return {begin, begin + (last + 1) * size_of(t.dtype)};
}

}  // namespace

void DeviceMemory::cover(const Tensor& t) {
  if (!t || t.numel() == 0) return;
  auto [begin, end] = extent(t);
  std::erase_if(blocks_, [&](const Block& b) {
    const bool overlaps = b.begin < end && begin < b.end;
    if (overlaps) {
      begin = std::min(begin, b.begin);
      end = std::max(end, b.end);
    }
    return overlaps;
  });
  blocks_.push_back({begin, end, {}, {}});
}

void DeviceMemory::allocate() {
  for (Block& b : blocks_) b.memory = Buffer(b.end - b.begin, "op case", &backend_);
}

Tensor DeviceMemory::twin(const Tensor& t) const {
  if (!t) return t;
  Tensor twin = t;
  twin.device = {DeviceKind::kCuda, 0};
  twin.data = nullptr;
  if (t.numel() == 0) return twin;
  const auto* at = static_cast<std::byte*>(t.data);
  for (const Block& b : blocks_)
    if (at >= b.begin && at < b.end) twin.data = b.memory.data() + (at - b.begin);
  return twin;
}

void DeviceMemory::upload() {
  for (const Block& b : blocks_) backend_.copy_to_device(b.memory.data(), b.begin, b.end - b.begin);
}

void DeviceMemory::download() {
  for (const Block& b : blocks_) backend_.copy_to_host(b.begin, b.memory.data(), b.end - b.begin);
  backend_.synchronize("op case");
}

void DeviceMemory::restore() {
  for (Block& b : blocks_) {
    const int64_t bytes = b.end - b.begin;
    if (b.pristine.bytes() == 0) {
      b.pristine = Buffer(bytes, "op case", &backend_);
      backend_.copy_on_device(b.pristine.data(), b.memory.data(), bytes);
    }
    backend_.copy_on_device(b.memory.data(), b.pristine.data(), bytes);
  }
}

int64_t DeviceMemory::bytes() const {
  int64_t bytes = 0;
  for (const Block& b : blocks_) bytes += b.end - b.begin;
  return bytes;
}

double median_graph_seconds(Backend& backend, const std::function<void()>& prepare, Graph& graph, int count) {
  constexpr int kRepeats = 9;
  const auto begin = backend.make_event(), end = backend.make_event();
  std::vector<double> seconds;
  for (int i = 0; i <= kRepeats; ++i) {  // the first one warms up
    prepare();
    begin->record();
    graph.launch();
    end->record();
    if (i > 0) seconds.push_back(end->seconds_since(*begin) / count);
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRepeats / 2, seconds.end());
  return seconds[kRepeats / 2];
}

}  // namespace moge::test
