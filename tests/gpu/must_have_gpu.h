// Tests of a GPU skip themselves aloud where there is none; script/test --gpu has them fail instead.
#pragma once
#include <cstdlib>

namespace moge::test {

/// Whether MOGE_NEED_GPU is set.
inline bool must_have_gpu() {
  return std::getenv("MOGE_NEED_GPU") != nullptr;
}

}  // namespace moge::test
