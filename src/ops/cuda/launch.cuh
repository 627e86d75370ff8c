// How every kernel starts: with programmatic dependent launch, so that its set-up overlaps the end of the
// kernel before it, and with its error checked. The rules of a chain of such kernels:
//
//   - wait_for_previous() comes before the first read of what this step wrote, and before every write. Each
//     kernel waits, so when its wait ends all kernels before the previous one have ended too.
//   - let_next_start() comes first of all: the next kernel's blocks then take what room is left on the
//     multiprocessors as soon as all blocks of this one have started (so they displace none of them), and may
//     let the one after them start: a product fills its ring of weights behind a norm and whatever that waits
//     for. Constants (weights, gates) may be read before the wait.
//   - Some read before their wait what an earlier kernel of the step wrote: rope_kv_write slots and angles,
//     mul_attention lengths, block table and older keys. So every chain that leads to them has a kernel
//     between that lets the next start after its own wait, when all before the kernel before it have ended:
//     the projection (a quant_matmul) before the first layer's rope_kv_write, mul_attention itself before the
//     next layer's. In mul_attention that also keeps two launches, which share a counter, from running at
//     once.
//   - A kernel that is beside_previous (ops/quant_matmul.h) waits last of all. It begins when all blocks of
//     the one before have let it. So a quant_matmul kernel lets the next start after its own wait, or not at
//     all: then all kernels before it have ended, and what they wrote may be read beside it.
#pragma once
#include <cuda_runtime.h>

#include "core/cuda/check.h"
#include "core/exec_context.h"

namespace moge::ops::cuda {

inline cudaStream_t stream_of(const ExecContext& ctx) {
  return static_cast<cudaStream_t>(ctx.backend->stream());
}

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  int shared_bytes = 0;  ///< dynamic; above 48 KiB the kernel's attribute is raised
  int cluster = 1;       ///< thread blocks of a cluster, along x
};

/// Lets the kernel have what c asks for. Never less than what every kernel has anyway: the next launch,
/// perhaps of other sizes, relies on that much.
template <class... Params>
void raise_shared_memory(const char* op, void (*kernel)(Params...), const LaunchConfig& c) {
  if (c.shared_bytes <= 48 * 1024) return;
  moge::cuda::check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, c.shared_bytes), op, ": ",
      c.shared_bytes, " bytes of shared memory");
}

/// How many clusters of c.cluster blocks the device runs at once. Not always as many as its multiprocessors
/// would allow: a cluster's must be neighbours.
template <class... Params>
int max_active_clusters(const char* op, void (*kernel)(Params...), const LaunchConfig& c) {
  raise_shared_memory(op, kernel, c);
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(c.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = c.grid;
  config.blockDim = c.block;
  config.dynamicSmemBytes = static_cast<size_t>(c.shared_bytes);
  config.attrs = &cluster;
  config.numAttrs = 1;
  int clusters = 0;
  moge::cuda::check_cuda(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), op,
                         ": counting clusters of ", c.cluster);
  return clusters;
}

/// Launches kernel(args...). The kernel calls wait_for_previous() before it touches anything that an earlier
/// one wrote. Throws DeviceError naming `op`.
template <class... Params, class... Args>
void launch(const ExecContext& ctx, const char* op, void (*kernel)(Params...), const LaunchConfig& c,
            Args&&... args) {
  raise_shared_memory(op, kernel, c);
  if (c.cluster > 8)  // more than every device takes
    moge::cuda::check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
                           op, ": clusters of ", c.cluster);
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(c.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = c.grid;
  config.blockDim = c.block;
  config.dynamicSmemBytes = static_cast<size_t>(c.shared_bytes);
  config.stream = stream_of(ctx);
  config.attrs = attributes;
  config.numAttrs = c.cluster > 1 ? 2 : 1;
  moge::cuda::check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), op,
                         ": launch of ", c.grid.x, "x", c.grid.y, "x", c.grid.z, " blocks of ", c.block.x,
                         " threads");
}

/// Before the first access to what earlier kernels wrote: waits until they are done and their writes visible.
__device__ __forceinline__ void wait_for_previous() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
/// The next kernel may start its set-up now (it still waits for this one's end before reading its results).
__device__ __forceinline__ void let_next_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace moge::ops::cuda
