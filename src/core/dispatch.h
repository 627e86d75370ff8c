// An op's ordered implementation list, fastest first, reference last (oneDNN's idea). dispatch() runs the
// first implementation on the context's device that supports the arguments; why others refused is logged with
// MOGE_VERBOSE=dispatch. MOGE_IMPL=rmsnorm_fwd:cpu.ref,matmul_nt:cpu.avx2 forces implementations by name; a
// name without an op (MOGE_IMPL=cpu.ref) holds for every op that has it, the others choose as ever.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "core/exec_context.h"
#include "core/fields.h"

namespace moge {

/// Empty: supported. Otherwise why not ("head_dim 72: expected a multiple of 16").
using Refusal = std::string;

template <class Args>
struct Impl {
  const char* name;  ///< "cpu.ref", "cpu.avx512", "cuda.sm90"
  DeviceKind device;
  Refusal (*supports)(const Args&);
  void (*run)(ExecContext&, const Args&, std::span<std::byte> workspace);
  int64_t (*workspace_bytes)(const ExecContext&, const Args&) = nullptr;  ///< null: none
};

template <class Args>
struct OpTable {
  const char* op;  ///< "rmsnorm_fwd"
  std::vector<Impl<Args>> impls;
};

/// What MOGE_IMPL says about an op.
struct ForcedImpl {
  std::string name;          ///< of the implementation; "": any
  bool if_there_is = false;  ///< named without an op: binds only ops that have it
};
/// All of it by op ("": any). Read once, at the first call. UsageError for what is not of that form.
const std::map<std::string, ForcedImpl>& forced_impls();
const ForcedImpl& forced_impl(const std::string& op);
/// MOGE_VERBOSE=dispatch. UsageError for another name; 0, 1, false and true belong to the flag --verbose.
bool verbose_dispatch();
/// MOGE_CUDA_SYNC=1: every op waits for its end on the device, so that a failure names the op that caused it.
bool sync_every_op();
void log_dispatch(const std::string& message);
/// Throws the error for an op that nothing supports: names the op, the device and each refusal.
[[noreturn]] void throw_unsupported(const char* op, const std::vector<std::string>& refusals);

/// Runs one implementation, with its workspace (harness and dispatch). A DeviceError says the op, the
/// implementation and the tensors as well; one of the kernel itself comes only later, except with
/// MOGE_CUDA_SYNC=1.
template <class Args>
void run_impl(ExecContext& ctx, const OpTable<Args>& table, const Impl<Args>& impl, const Args& args) {
  const int64_t bytes = impl.workspace_bytes ? impl.workspace_bytes(ctx, args) : 0;
  dcheck(bytes == 0 || ctx.workspace != nullptr, table.op, ": needs ", bytes,
         " bytes of workspace, the context has none");
  if (ctx.planning) {
    if (bytes > 0) ctx.workspace->plan(bytes);
    return;
  }
  const std::span<std::byte> workspace =
      bytes > 0 ? ctx.workspace->get(bytes, table.op) : std::span<std::byte>{};
  try {
    impl.run(ctx, args, workspace);
    if (ctx.backend && sync_every_op() && !ctx.backend->recording()) ctx.backend->synchronize(table.op);
  } catch (const DeviceError& error) {
    throw DeviceError(str(error.what(), "; in ", table.op, ", ", impl.name, ", of ", tensors_text(args)));
  }
}

template <class Args>
void dispatch(ExecContext& ctx, const OpTable<Args>& table, const Args& args) {
  const ForcedImpl& forced = forced_impl(table.op);
  const auto on_device = [&](const Impl<Args>& impl) { return impl.device == ctx.device.kind; };
  const auto is_forced = [&](const Impl<Args>& impl) { return on_device(impl) && forced.name == impl.name; };
  const bool any =
      forced.name.empty() || (forced.if_there_is && std::ranges::none_of(table.impls, is_forced));
  std::vector<std::string> refusals;
  for (const Impl<Args>& impl : table.impls) {
    if (!on_device(impl) || !(any || is_forced(impl))) continue;
    const Refusal refusal = impl.supports(args);
    if (refusal.empty()) {
      if (verbose_dispatch()) log_dispatch(str(table.op, ": ", impl.name));
      if (!ctx.observer || ctx.planning) return run_impl(ctx, table, impl, args);
      ctx.observer->before(table.op);
      run_impl(ctx, table, impl, args);
      return ctx.observer->after(table.op);
    }
    if (verbose_dispatch()) log_dispatch(str(table.op, ": ", impl.name, " refused: ", refusal));
    refusals.push_back(str(impl.name, ": ", refusal));
  }
  throw_unsupported(table.op, refusals);
}

}  // namespace moge
