// Whether what an engine plans to allocate fits, asked before anything is allocated.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/exec_context.h"

namespace moge::engine {

/// What ctx's device can still give: its backend's memory, or the CPU's.
int64_t free_bytes(const ExecContext& ctx);

/// The largest n of 0..most for which total(n) bytes, which grow with n, are at most `free`; total(0) is not
/// asked.
int64_t largest_fit(int64_t most, int64_t free, const std::function<int64_t(int64_t n)>& total);

/// Throws OutOfMemoryError: the plan's parts, what is free `where` ("on NVIDIA H200") and by how much it is
/// too little, and what would fit.
[[noreturn]] void refuse_plan(const std::string& where, const std::string& parts, int64_t need, int64_t free,
                              const std::string& would_fit);

}  // namespace moge::engine
