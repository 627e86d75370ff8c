// A word to the user when a model's sizes miss the fast kernels.
#pragma once
#include "core/dispatch.h"

namespace moge::ops::cuda {

/// Warns, once for each op and reason, that its plain kernel runs because the fast one refused. On standard
/// error rather than with MOGE_VERBOSE=dispatch: who does not know of the fast kernel does not ask. Nothing
/// for an empty refusal, with which MOGE_IMPL or a test has asked for the plain kernel.
void warn_of_plain_kernel(const char* op, const Refusal& fast);

}  // namespace moge::ops::cuda
