// Copies between host memory and wherever a context's tensors live.
#pragma once
#include "core/exec_context.h"

namespace moge {

/// Fills a contiguous tensor from host memory. On a device the copy is only queued: the host memory must stay
/// as it is until the next synchronize().
void upload(ExecContext& ctx, const Tensor& to, const void* host);
/// Waits for all queued work, then reads a contiguous tensor.
void download(ExecContext& ctx, void* host, const Tensor& from);
/// Waits for all queued work; nothing to do on the CPU.
void synchronize(ExecContext& ctx, const char* where);

}  // namespace moge
