// Every op by name, for those who name one from outside: MOGE_IMPL.
#pragma once
#include <string>
#include <vector>

namespace moge::ops {

struct OpNames {
  std::string op;                  ///< "rmsnorm_fwd"
  std::vector<std::string> impls;  ///< fastest first; those of a GPU only once its plugin is open
};
std::vector<OpNames> all_ops();

/// UsageError, naming what there is, for an op or an implementation in MOGE_IMPL that there is not, and for
/// an unknown MOGE_VERBOSE. A GPU's implementations are not known yet: their names pass, and the op itself
/// complains.
void check_environment();

}  // namespace moge::ops
