#include "core/cuda/backend.h"

#include <cstdlib>

#include "core/buffer.h"
#include "core/cuda/check.h"
#include "core/cuda/copy_bandwidth.h"
#include "core/device_search.h"
#include "core/dispatch.h"

namespace moge::cuda {

namespace {

void check_device(const DeviceSearch& found) {
  const std::string refusal = device_refusal(found);
  check<DeviceError>(refusal.empty(), refusal);
}

class CudaGraph : public Graph {
 public:
  CudaGraph(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    // Uploaded at once: what memory it takes is taken here, not at the first launch.
    cudaGraphInstantiateParams params{.flags = cudaGraphInstantiateFlagUpload, .uploadStream = stream};
    const cudaError_t error = cudaGraphInstantiateWithParams(&exec_, graph, &params);
    cudaGraphDestroy(graph);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw OutOfMemoryError("a graph of a decode step: no memory left on the GPU");
    }
    check_cuda(error, "graph: instantiate");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(exec_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void launch() override { check_cuda(cudaGraphLaunch(exec_, stream_), "graph: launch"); }

 private:
  cudaGraphExec_t exec_ = nullptr;
  cudaStream_t stream_;
};

class CudaEvent : public Event {
 public:
  explicit CudaEvent(cudaStream_t stream) : stream_(stream) {
    check_cuda(cudaEventCreate(&event_), "event: create");
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  void record() override {
    // In recorded work: the time is taken whenever it runs, not only an order kept.
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(stream_, &status), "event: record");
    const unsigned flags =
        status == cudaStreamCaptureStatusActive ? cudaEventRecordExternal : cudaEventRecordDefault;
    check_cuda(cudaEventRecordWithFlags(event_, stream_, flags), "event: record");
  }
  void wait() override { check_cuda(cudaEventSynchronize(event_), "event: wait"); }
  double seconds_since(Event& start) override {
    check_cuda(cudaEventSynchronize(event_), "event: wait");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, dynamic_cast<CudaEvent&>(start).event_, event_),
               "event: elapsed time");
    return static_cast<double>(milliseconds) * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
  cudaStream_t stream_;
};

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int index) {
    // A kernel that is loaded at its first launch cannot be launched first while a graph is recorded.
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    DeviceSearch search{.runtime_version = CUDART_VERSION, .index = index};
    const cudaError_t found = cudaGetDeviceCount(&search.count);  // left unwritten when there is no driver
    cudaDriverGetVersion(&search.driver_version);
    search.driver_too_old = found == cudaErrorInsufficientDriver;
    if (!search.driver_too_old) check_cuda(found, "looking for GPUs");
    check_device(search);
    check_cuda(cudaSetDevice(index), "GPU ", index);
    cudaDeviceProp p{};
    check_cuda(cudaGetDeviceProperties(&p, index), "GPU ", index);
    info_ = {.name = p.name,
             .capability = str(p.major, ".", p.minor),
             .driver_version = cuda_version_text(search.driver_version),
             .memory_bytes = static_cast<int64_t>(p.totalGlobalMem),
             .l2_bytes = p.l2CacheSize,
             .num_sms = p.multiProcessorCount};
    search.gpu = &info_;
    check_device(search);
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "GPU ", index, ": stream");
  }

  const DeviceInfo& info() const override { return info_; }
  int64_t free_bytes() const override {
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "free device memory");
    return static_cast<int64_t>(free);
  }

  void* allocate(int64_t bytes, const std::string& purpose) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw OutOfMemoryError(str(purpose, ": needs ", bytes, " bytes on ", info_.name, ", which has ",
                                 free_bytes(), " of ", info_.memory_bytes, " free"));
    }
    check_cuda(error, purpose, ": allocating ", bytes, " bytes");
    return memory;
  }
  void deallocate(void* memory) noexcept override { cudaFree(memory); }
  void* allocate_pinned(int64_t bytes, const std::string& purpose) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMallocHost(&memory, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw OutOfMemoryError(str(purpose, ": cannot pin ", bytes, " bytes of host memory"));
    }
    check_cuda(error, purpose, ": pinning ", bytes, " bytes");
    return memory;
  }
  void deallocate_pinned(void* memory) noexcept override { cudaFreeHost(memory); }

  void fill_bytes(void* device, uint8_t value, int64_t bytes) override {
    check_cuda(cudaMemsetAsync(device, value, static_cast<size_t>(bytes), stream_), "fill of ", bytes,
               " bytes");
  }
  void copy_to_device(void* device, const void* host, int64_t bytes) override {
    copy(device, host, bytes, cudaMemcpyHostToDevice);
  }
  void copy_to_host(void* host, const void* device, int64_t bytes) override {
    copy(host, device, bytes, cudaMemcpyDeviceToHost);
  }
  void copy_on_device(void* to, const void* from, int64_t bytes) override {
    copy(to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  void synchronize(const char* where) override {
    check_cuda(cudaStreamSynchronize(stream_), where,
               sync_every_op() ? "" : " (MOGE_CUDA_SYNC=1 finds the op that failed)");
  }

  double copy_bandwidth() override {
    constexpr int64_t kBytes = int64_t{1} << 30;
    const Buffer from(kBytes, "copy bandwidth", this), to(kBytes, "copy bandwidth", this);
    fill_bytes(from.data(), 0x5a, kBytes);
    return cuda::copy_bandwidth(to.data(), from.data(), kBytes, stream_);
  }

  void* stream() const override { return stream_; }
  void begin_capture() override {
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "graph: begin");
    recording_ = true;
  }
  bool recording() const override { return recording_; }
  std::unique_ptr<Graph> end_capture() override {
    cudaGraph_t graph = nullptr;
    recording_ = false;
    check_cuda(cudaStreamEndCapture(stream_, &graph), "graph: end");
    return std::make_unique<CudaGraph>(graph, stream_);
  }
  std::unique_ptr<Event> make_event() override { return std::make_unique<CudaEvent>(stream_); }

 private:
  void copy(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    check_cuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream_), "copy of ", bytes,
               " bytes");
  }

  DeviceInfo info_;
  bool recording_ = false;
  cudaStream_t stream_ = nullptr;  // lives as long as the process
};

}  // namespace

std::unique_ptr<Backend> open_backend(int index) {
  return std::make_unique<CudaBackend>(index);
}

}  // namespace moge::cuda
